package notify

import (
	"fmt"
	"strconv"
	"strings"
)

// A Group is one group that a message says was removed.
type Group struct {
	Kind byte   // Tag or Prefix
	Name string // a hash where keys are hidden: see HiddenTag
	ID   int64  // of the removal's record; 0: nothing was removed, but too many keys with this prefix have changed to name each
}

// The kinds of groups, which begin their items.
const (
	Tag    = 't'
	Prefix = 'p'
)

// AppendGroup appends the item of a group that was removed. Only tests use it.
func AppendGroup(b []byte, g Group) []byte {
	return AppendItem(append(b, g.Kind), g.Name, g.ID)
}

// HiddenTag is what stands for a tag in a message where keys are hidden.
func HiddenTag(secret []byte, tag string) string { return HiddenKey(secret, "t"+tag) }

// cutGroup takes an item of a group off the front of rest.
func cutGroup(rest string) (g Group, tail string, err error) {
	bad := func() (Group, string, error) {
		return Group{}, "", fmt.Errorf("bad group in payload at %.40q", rest)
	}
	head, tail, ok := strings.Cut(rest[1:], ":")
	n, err := strconv.ParseUint(head, 10, 16)
	if !ok || err != nil || uint64(len(tail)) < n+versionDigits+1 {
		return bad()
	}
	name, tail := tail[:n], tail[n:]
	id, err := strconv.ParseUint(tail[:versionDigits], 16, 63)
	if err != nil || tail[versionDigits] != ';' {
		return bad()
	}
	return Group{rest[0], name, int64(id)}, tail[versionDigits+1:], nil
}
