package store_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/pgcache/go/internal/store"
)

func TestResolve(t *testing.T) {
	t.Parallel()
	long := func(n int) string { return strings.Repeat("x", n) }
	for _, test := range []struct {
		names   store.Names
		channel string
		says    string // of the error
	}{
		{names: store.Names{}, channel: "cache_events"},
		{names: store.Names{Prefix: "a_"}, channel: "a_cache_events"},
		{names: store.Names{Schema: "s", Prefix: "a_"}, channel: "s_a_cache_events"},
		{names: store.Names{Schema: "s", Channel: "mine"}, channel: "mine"},
		{names: store.Names{Channel: long(63)}, channel: long(63)},
		{names: store.Names{Prefix: long(41)}, channel: long(41) + "cache_events"},
		{names: store.Names{Schema: long(63)}},              // some short channel
		{names: store.Names{Schema: "s" + long(62)}},        // and another one
		{names: store.Names{Schema: long(63), Prefix: "1"}}, // and another one
		{names: store.Names{Prefix: long(42)}, says: "Prefix"},
		{names: store.Names{Schema: long(64)}, says: "Schema"},
		{names: store.Names{Channel: long(64)}, says: "Channel"},
		{names: store.Names{Prefix: "\u00e4"}, says: "Prefix"},
		{names: store.Names{Schema: "a\n"}, says: "Schema"},
		{names: store.Names{Schema: "pg_catalog"}, says: "Schema"},
		{names: store.Names{Schema: "pg_own"}, says: "Schema"},
		{names: store.Names{Schema: "information_schema"}, says: "Schema"},
		{names: store.Names{Channel: "'"}, says: "Channel"},
	} {
		n, err := test.names.Resolve()
		switch {
		case test.says != "":
			if err == nil || !strings.HasPrefix(err.Error(), test.says+" ") {
				t.Errorf("%+v: %v", test.names, err)
			}
		case err != nil:
			t.Errorf("%+v: %v", test.names, err)
		case len(n.Channel) > 63 || n.Channel == "":
			t.Errorf("%+v: channel %q", test.names, n.Channel)
		case test.channel != "" && n.Channel != test.channel:
			t.Errorf("%+v: channel %q", test.names, n.Channel)
		}
		if again, err2 := n.Resolve(); err == nil && (err2 != nil || again != n) {
			t.Errorf("%+v, resolved again: %+v, %v", n, again, err2)
		}
	}
	// Different caches in one database have different channels, however long their names are.
	channels := map[string]store.Names{}
	for _, schema := range []string{"", "a", "a_b", long(60), long(61), long(62)} {
		for _, prefix := range []string{"", "p", "p_", long(40), long(41)} {
			n, err := store.Names{Schema: schema, Prefix: prefix}.Resolve()
			if err != nil {
				t.Fatal(err)
			}
			if other, ok := channels[n.Channel]; ok {
				t.Errorf("%q is the channel of %+v and %+v", n.Channel, n, other)
			}
			channels[n.Channel] = n
		}
	}
}

func TestRender(t *testing.T) {
	t.Parallel()
	text := "CREATE /* TEMPLATE: persistence */UNLOGGED TABLE /* TEMPLATE: prefix */cache_x (a text DEFAULT '/* TEMPLATE: prefix */cache_y'); f(/* TEMPLATE: bare */c) /* TEMPLATE: other */x /* y */ WHERE /* TEMPLATE: any_removal */true"
	for _, test := range []struct {
		names store.Names
		want  string
	}{
		{store.Names{Channel: "ch"}, `CREATE UNLOGGED TABLE "cache_x" (a text DEFAULT '"cache_y"'); f("c") /* TEMPLATE: other */x /* y */ WHERE (pg_sequence_last_value('"cache_groups_mark"') IS DISTINCT FROM 1)`},
		{store.Names{Schema: "S", Prefix: "P_", Channel: "ch"}, `CREATE UNLOGGED TABLE "S"."P_cache_x" (a text DEFAULT '"S"."P_cache_y"'); f("P_c") /* TEMPLATE: other */x /* y */ WHERE (pg_sequence_last_value('"S"."P_cache_groups_mark"') IS DISTINCT FROM 1)`},
		{store.Names{Durable: true, Channel: "ch"}, `CREATE  TABLE "cache_x" (a text DEFAULT '"cache_y"'); f("c") /* TEMPLATE: other */x /* y */ WHERE (pg_sequence_last_value('"cache_groups_mark"') IS DISTINCT FROM 1)`},
	} {
		if got := test.names.Render(text); got != test.want {
			t.Errorf("%+v: %s", test.names, got)
		}
	}
	n := store.Names{Schema: "S", Prefix: "P_"}
	if got := fmt.Sprint(n.Table(), n.State()); got != `"S"."P_cache_entries""S"."P_cache_state"` {
		t.Error(got)
	}
}

// Processes of different releases must agree on the locks.
func TestLockNumbers(t *testing.T) {
	t.Parallel()
	n := store.Names{Schema: "s", Prefix: "p_"}
	if got := fmt.Sprint(n.Class(), store.Hash("user:1"), store.Hash("")); got != fmt.Sprint(-1450119831, 1830439627, -2128831035) {
		t.Error(got)
	}
	if n.Class() == (store.Names{Schema: "s", Prefix: "q_"}).Class() || n.Class() == (store.Names{Schema: "t", Prefix: "p_"}).Class() {
		t.Error("caches share their locks")
	}
}
