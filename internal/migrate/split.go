package migrate

import (
	"regexp"
	"strings"
)

// dollar is what opens a dollar quote, and closes it again.
var dollar = regexp.MustCompile(`^\$([A-Za-z_]\w*)?\$`)

// split cuts a migration at the semicolons that end its statements: drivers differ in whether they take several at once.
// It knows dollar quotes with and without a tag, strings and comments, as far as our own files use them.
func split(text string) []string {
	var statements []string
	start := 0
	add := func(end int) {
		if s := strings.TrimSpace(text[start:end]); s != "" {
			statements = append(statements, s)
		}
		start = end
	}
	for i := 0; i < len(text); i++ {
		skip := func(open, end string) bool {
			if !strings.HasPrefix(text[i:], open) {
				return false
			}
			if n := strings.Index(text[i+len(open):], end); n >= 0 {
				i += len(open) + n + len(end) - 1
			} else {
				i = len(text) - 1
			}
			return true
		}
		tag := dollar.FindString(text[i:])
		switch {
		case skip("--", "\n"), skip("/*", "*/"), tag != "" && skip(tag, tag), skip("'", "'"):
		case text[i] == ';':
			add(i + 1)
		}
	}
	add(len(text))
	return statements
}
