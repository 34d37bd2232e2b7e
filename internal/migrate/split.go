package migrate

import (
	"regexp"
	"strings"
)

// dollar matches the tag that opens a dollar quote; the same tag closes it.
var dollar = regexp.MustCompile(`^\$([A-Za-z_]\w*)?\$`)

// split cuts a migration into statements, after the semicolon of each: not every driver takes several statements at once. It
// knows dollar quotes, strings and comments, but only those forms that the project's own migrations use: no nested comments,
// for one.
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
