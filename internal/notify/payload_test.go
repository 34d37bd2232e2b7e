package notify

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

type item struct {
	Key      string
	Versions []int64
}

func parse(payload string) (items []item, all bool, err error) {
	err = Parse(payload, func(k string, vs []int64) {
		items = append(items, item{k, append([]int64(nil), vs...)})
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
	b := []byte(Head(7))
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
	got, _, err = parse(One("k", 255))
	if d := cmp.Diff([]item{{"k", []int64{255}}}, got); d != "" || err != nil {
		t.Error(err, d)
	}
	if len(One(strings.Repeat("k", 1024), 1<<63-1)) > MaxPayload {
		t.Error("the largest key does not fit into a payload")
	}
}

func TestAll(t *testing.T) {
	t.Parallel()
	for _, p := range []string{Head(0) + "*", Head(1<<32-1) + "*", "2*"} {
		if items, all, err := parse(p); len(items) > 0 || !all || err != nil {
			t.Errorf("Parse(%q) = %v, all %v, %v", p, items, all, err)
		}
	}
}

func TestGarbage(t *testing.T) {
	t.Parallel()
	for _, p := range []string{
		"", "*", "3*", "x", "1*", "1", "10000000g*", "1+0000001*", "100000001**", "23:k", "2k:0000000000000001;", "299999999999999999999:k0000000000000001;", "21:k;", "21:k",
		"21:k000000000000000;", "21:k000000000000000g;", "21:kffffffffffffffff;", "21:k0000000000000001", "2**", "2;",
		"2-1:k0000000000000001;", "2+1:k0000000000000001;", `{"key":"k"}`, "21:k0000000000000001;x",
	} {
		if _, all, err := parse(p); err == nil || all {
			t.Errorf("Parse(%q) was accepted", p)
		}
	}
}

func FuzzParse(f *testing.F) {
	for _, s := range []string{Head(1) + "*", Head(2) + "1:k0000000000000001;", One("user:1", 7), "2", "2:;", "23:ab"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, p string) {
		items, all, err := parse(p)
		if err != nil || all {
			return
		}
		b := []byte{Inline}
		for _, i := range items {
			b = AppendItem(b, i.Key, i.Versions...)
		}
		again, _, err := parse(string(b))
		if d := cmp.Diff(items, again); err != nil || d != "" {
			t.Fatalf("%q: %v %s", p, err, d)
		}
	})
}
