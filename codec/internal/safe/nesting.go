package safe

import (
	"fmt"
	"reflect"
	"strings"
	"sync"
)

// MaxDepth is how many structs, slices, arrays and maps may lie inside one another; encoding/json has the same limit.
// Package codec/msgpack decodes nothing deeper either, so that what was decoded can be encoded again.
const MaxDepth = 10_000

// maxSteps is how many levels there may be in all when pointers and interfaces are counted too: a pointer can point to itself.
const maxSteps = 4 * MaxDepth

// Nesting finds values that are too deep for a library which recurses without a limit. A value that contains itself
// makes such a library overflow the stack, which cannot be recovered from, so it has to be found beforehand.
type Nesting struct {
	// Custom are the interfaces through which a type encodes itself. Check does not look inside such a type.
	Custom []reflect.Type
	// Tag is the struct tag whose name "-" leaves a field out, "" if there is none.
	Tag string

	endless sync.Map // reflect.Type -> bool, what isEndless returned
}

// Check returns an error if v nests deeper than MaxDepth. For types that cannot, which most are, it costs one look-up.
func (n *Nesting) Check(v any) error { return n.walk(reflect.ValueOf(v), 0, 0) }

func (n *Nesting) walk(v reflect.Value, depth, steps int) error {
	if !v.IsValid() || !n.isEndless(v.Type()) {
		return nil
	}
	if depth > MaxDepth || steps > maxSteps {
		return PlainError(fmt.Sprintf("the value contains itself or nests deeper than %d levels", MaxDepth))
	}
	switch v.Kind() {
	case reflect.Pointer, reflect.Interface:
		return n.walk(v.Elem(), depth, steps+1)
	case reflect.Slice, reflect.Array:
		for i := range v.Len() {
			if err := n.walk(v.Index(i), depth+1, steps+1); err != nil {
				return err
			}
		}
	case reflect.Map:
		for entries := v.MapRange(); entries.Next(); {
			if err := n.walk(entries.Key(), depth+1, steps+1); err != nil {
				return err
			}
			if err := n.walk(entries.Value(), depth+1, steps+1); err != nil {
				return err
			}
		}
	case reflect.Struct:
		for i := range v.NumField() {
			if !n.encodes(v.Type().Field(i)) {
				continue
			}
			if err := n.walk(v.Field(i), depth+1, steps+1); err != nil {
				return err
			}
		}
	}
	return nil
}

// isEndless reports whether a value of type t may nest without bound: some type in it leads back to itself, or to an
// interface, which may hold anything.
func (n *Nesting) isEndless(t reflect.Type) bool {
	if known, ok := n.endless.Load(t); ok {
		return known.(bool)
	}
	endless := n.search(t, make(map[reflect.Type]bool))
	n.endless.Store(t, endless)
	return endless
}

// search is isEndless without the memory of earlier calls. seen has the types that were met: true for those that contain t,
// false for those that are finished.
func (n *Nesting) search(t reflect.Type, seen map[reflect.Type]bool) bool {
	if inside, ok := seen[t]; ok {
		return inside
	}
	if t.Kind() == reflect.Interface {
		return true
	}
	if n.isCustom(t) {
		return false
	}
	seen[t] = true
	endless := false
	switch t.Kind() {
	case reflect.Pointer, reflect.Slice, reflect.Array:
		endless = n.search(t.Elem(), seen)
	case reflect.Map:
		endless = n.search(t.Key(), seen) || n.search(t.Elem(), seen)
	case reflect.Struct:
		for i := 0; i < t.NumField() && !endless; i++ {
			field := t.Field(i)
			endless = n.encodes(field) && n.search(field.Type, seen)
		}
	}
	seen[t] = false
	return endless
}

// isCustom says whether t or *t encodes itself.
func (n *Nesting) isCustom(t reflect.Type) bool {
	for _, custom := range n.Custom {
		if t.Implements(custom) || reflect.PointerTo(t).Implements(custom) {
			return true
		}
	}
	return false
}

// encodes says whether the library may encode the field.
func (n *Nesting) encodes(field reflect.StructField) bool {
	if !field.IsExported() && !field.Anonymous {
		return false
	}
	name, _, _ := strings.Cut(field.Tag.Get(n.Tag), ",")
	return name != "-"
}
