package notify

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

const inlineHead = "200c0ffee"

func flushHead(node uint32) string { return "100c0ffee" + Sender(node, 25*time.Millisecond) }

type item struct {
	Key      string
	Versions []int64
}

// parse returns a group as an item whose key begins with a NUL and its kind.
func parse(payload string) (items []item, all bool, err error) {
	m, err := Parse(payload)
	if err != nil {
		return nil, false, err
	}
	err = m.Items(func(k string, vs []int64) {
		items = append(items, item{k, append([]int64(nil), vs...)})
	}, func(g Group) {
		items = append(items, item{"\x00" + string(g.Kind) + g.Name, []int64{g.ID}})
	}, func() { all = true })
	return items, all, err
}

func TestRoundTrip(t *testing.T) {
	t.Parallel()
	want := []item{
		{"user:1", []int64{1}},
		{"", []int64{2}},
		{`";:*1` + "\x1f\n\u202e\U0001f600", []int64{1<<63 - 1, 3, 0}},
		{"12:a", []int64{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16}},
	}
	b := []byte(flushHead(7))
	for _, i := range want {
		b = AppendItem(b, i.Key, i.Versions...)
	}
	got, all, err := parse(string(b))
	if err != nil || all {
		t.Fatalf("Parse(%q) = all %v, %v", b, all, err)
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
	got, _, err = parse(inlineHead + one("k", 255))
	if d := cmp.Diff([]item{{"k", []int64{255}}}, got); d != "" || err != nil {
		t.Error(err, d)
	}
	if len(inlineHead+one(strings.Repeat("k", 1024), 1<<63-1)) > MaxPayload {
		t.Error("the largest key does not fit into a payload")
	}
}

// Groups and keys may stand beside each other, and a tag may be called like anything.
func TestGroups(t *testing.T) {
	t.Parallel()
	groups := []Group{{Tag, "org:7", 1}, {Prefix, "user:", 1<<63 - 1}, {Tag, "", 2}, {Tag, "p1:x0000000000000001;*", 3}}
	b := []byte(inlineHead)
	var want []item
	for _, g := range groups {
		b = AppendItem(AppendGroup(b, g), "k", 7)
		want = append(want, item{"\x00" + string(g.Kind) + g.Name, []int64{g.ID}}, item{"k", []int64{7}})
	}
	got, all, err := parse(string(b))
	if d := cmp.Diff(want, got); d != "" || all || err != nil {
		t.Error(all, err, d)
	}
	for _, body := range []string{
		"t", "p", "t:", "t1", "t1:", "t1:a", "t1:a;", "t1:a0000000000000001", "t1:a000000000000000;", "t1:a00000000000000010000000000000001;", "t1:a000000000000000g;",
		"t1:affffffffffffffff;", "t-1:a0000000000000001;", "q1:a0000000000000001;", "t9:a0000000000000001;", "tt1:a0000000000000001;",
	} {
		if items, all, err := parse(inlineHead + body); err == nil || all || len(items) != 0 {
			t.Errorf("%q was accepted: %v", body, items)
		}
	}
	if HiddenTag([]byte("s"), "a") == HiddenKey([]byte("s"), "a") {
		t.Error("a tag is hidden as a key of its name")
	}
}

func TestHead(t *testing.T) {
	t.Parallel()
	m, err := Parse(flushHead(0xdeadbeef) + "*")
	want := Message{Cache: "00c0ffee", Flush: true, Node: 0xdeadbeef, Window: 25 * time.Millisecond, Current: 25 * time.Millisecond, Body: "*"}
	if d := cmp.Diff(want, m); d != "" || err != nil {
		t.Error(err, d)
	}
	if !m.For("00c0ffee") || m.For("00c0ffef") {
		t.Error("a message is for the cache that it names")
	}
	if all := (Message{Cache: AnyCache}); !all.For("00c0ffee") {
		t.Error("a message for all caches is for each")
	}
	if m, err := Parse("100c0ffee" + StretchedSender(7, 25*time.Millisecond, 400*time.Millisecond, 65535)); err != nil || m.Node != 7 || m.Window != 25*time.Millisecond || m.Current != 400*time.Millisecond || m.Number != 65535 || m.Body != "" {
		t.Error(m, err)
	}
	if Sender(1, 0) != "00000001000000000000" || Sender(1, -time.Second) != "00000001000000000000" || Sender(1, time.Hour) != "00000001ffffffff0000" {
		t.Error("a window is cut to what four digits hold")
	}
	if len(Sender(1, time.Hour)) != len(Nobody) {
		t.Error("senders have one length")
	}
}

func TestAll(t *testing.T) {
	t.Parallel()
	for _, p := range []string{flushHead(0) + "*", flushHead(1<<32-1) + "*", inlineHead + "*"} {
		if items, all, err := parse(p); len(items) > 0 || !all || err != nil {
			t.Errorf("Parse(%q) = %v, all %v, %v", p, items, all, err)
		}
	}
}

func TestGarbage(t *testing.T) {
	t.Parallel()
	for _, p := range []string{
		"", "*", "3*", "300c0ffee*", "000c0ffee00000001001900190000*", "x", "1*", "1", "2*", "200c0ffe", "200c0ffe+*", "200c0ffeg*", "100c0ffee0000000g001900190000*", "100c0ffee+0000001001900190000*", "100c0ffee0000000100g900190000*", "100c0ffee0000000100190g190000*", "100c0ffee00000001001900190g00*",
		"100c0ffee00000001001900190000**", `{"key":"k"}`,
	} {
		if _, all, err := parse(p); err == nil || all {
			t.Errorf("Parse(%q) was accepted", p)
		}
	}
	for _, body := range []string{
		"3:k", ":k:0000000000000001;", "x:0000000000000001;", "99999999999999999999:k0000000000000001;", "1:k;", "1:k",
		"1:k000000000000000;", "1:k000000000000000g;", "1:kffffffffffffffff;", "1:k0000000000000001", "**", ";",
		"-1:k0000000000000001;", "+1:k0000000000000001;", "1:k0000000000000001;x",
	} {
		if _, all, err := parse(inlineHead + body); err == nil || all {
			t.Errorf("Parse(%q) was accepted", inlineHead+body)
		}
	}
}

// TestShortest: what is as short as it may be is understood, and what is one byte shorter is not.
func TestShortest(t *testing.T) {
	t.Parallel()
	for _, p := range []string{inlineHead, flushHead(1)} {
		if items, all, err := parse(p); err != nil || all || len(items) != 0 {
			t.Errorf("Parse(%q) = %v, all %v, %v", p, items, all, err)
		}
		if _, err := Parse(p[:len(p)-1]); err == nil {
			t.Errorf("Parse(%q) was accepted", p[:len(p)-1])
		}
	}
	// The node's id is eight digits, of which the last counts; a version may be as long as the rest of a payload.
	if m, err := Parse("100c0ffee000000019fff9ffff00af*"); err != nil || m.Node != 1 || m.Window != 0x9fff*time.Millisecond || m.Number != 0xf00a || m.Body != "f*" {
		t.Errorf("%+v, %v", m, err)
	}
	for _, body := range []string{"0:0000000000000001", "0:0000000000000001:", "0:0000000000000001x", "1:", "1:;", "x:k0000000000000001;", "1k0000000000000001;"} {
		if items, _, err := parse(inlineHead + body); err == nil || len(items) != 0 {
			t.Errorf("Parse(%q) = %v, %v", inlineHead+body, items, err)
		}
	}
}

func FuzzParse(f *testing.F) {
	for _, s := range []string{flushHead(1) + "*", flushHead(2) + "1:k0000000000000001;", inlineHead + one("user:1", 7), inlineHead, inlineHead + ":;", inlineHead + "3:ab", inlineHead + "t1:a0000000000000001;p0:0000000000000002;1:k0000000000000001;", inlineHead + "t1:a"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, p string) {
		items, all, err := parse(p)
		if err != nil || all {
			return
		}
		b := []byte(inlineHead)
		for _, i := range items {
			if len(i.Key) >= 2 && i.Key[0] == 0 && (i.Key[1] == Tag || i.Key[1] == Prefix) && len(i.Versions) == 1 {
				b = AppendGroup(b, Group{i.Key[1], i.Key[2:], i.Versions[0]})
			} else {
				b = AppendItem(b, i.Key, i.Versions...)
			}
		}
		again, _, err := parse(string(b))
		if d := cmp.Diff(items, again); err != nil || d != "" {
			t.Fatalf("%q: %v %s", p, err, d)
		}
	})
}

// one is the item of one version of a key.
func one(key string, version int64) string { return string(AppendItem(nil, key, version)) }
