package safe_test

import (
	"encoding"
	"reflect"
	"testing"
	"time"

	"github.com/pgcache/go/codec/internal/safe"
)

type (
	list   struct{ Next *list }
	tree   struct{ Children []*tree }
	levels map[string]levels
	parent struct {
		Name   string
		Parent *parent `enc:"-"`
		hidden *parent
	}
	embedded struct{ list }
	// text has a field that leads back to it, and a MarshalText that does not follow the field.
	text struct{ Self *text }
)

func (text) MarshalText() ([]byte, error) { return nil, nil }

func TestNesting(t *testing.T) {
	t.Parallel()
	chain := func(length int) *list {
		var head *list
		for range length {
			head = &list{Next: head}
		}
		return head
	}
	loop := &list{}
	loop.Next = loop
	circle := &tree{}
	circle.Children = []*tree{{}, {Children: []*tree{circle}}}
	top := levels{}
	top["down"] = levels{"up": top}
	var self any
	self = []any{1, map[string]any{"self": &self}}
	kin := &parent{Name: "ann"}
	kin.Parent, kin.hidden = kin, kin
	own := text{}
	own.Self = &own
	shared, deepest := &list{}, chain(safe.MaxDepth)

	n := &safe.Nesting{Custom: []reflect.Type{reflect.TypeFor[encoding.TextMarshaler]()}, Tag: "enc"}
	for name, v := range map[string]any{
		"nil": nil, "nil pointer": (*list)(nil), "number": 1, "time": time.Now(), "short chain": chain(10),
		"chain of pointers and structs, as deep as allowed": deepest,
		"the same twice":           []*list{shared, shared},
		"fields that are left out": kin, "a type of its own": own, "a channel": make(chan *list),
		"many, not deep": make([]any, 2*safe.MaxDepth),
	} {
		if err := n.Check(v); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	for name, v := range map[string]any{
		"loop": loop, "by value": *loop, "tree": circle, "map": top, "any": self, "pointer to any": &self,
		"long chain": chain(safe.MaxDepth + 1), "one level too many": []*list{deepest},
		"embedded": embedded{*loop}, "map key": map[any]int{loop: 1},
		"array": [1]any{loop}, "deep inside": map[string]any{"a": []any{struct{ L *list }{loop}}},
	} {
		if err := n.Check(v); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}
