package store

import (
	"strconv"
	"strings"
)

// packed is a list of writes as the columns of one statement.
type packed struct {
	keys, versions, bases, generations, ttls, codecs, louds, sizes string
	values                                                         []byte
}

func pack(ws []Write) packed {
	bytes := 0
	for i := range ws {
		bytes += len(ws[i].Value)
	}
	number := func(b *strings.Builder, n int64) { b.WriteString(strconv.FormatInt(n, 10)) }
	column := func(element func(b *strings.Builder, w *Write)) string {
		return arrayOf(len(ws), func(b *strings.Builder, i int) { element(b, &ws[i]) })
	}
	p := packed{
		keys:        column(func(b *strings.Builder, w *Write) { quoteElement(b, w.Key) }),
		versions:    column(func(b *strings.Builder, w *Write) { number(b, w.Version) }),
		bases:       column(func(b *strings.Builder, w *Write) { number(b, w.Base) }),
		generations: column(func(b *strings.Builder, w *Write) { number(b, w.Generation) }),
		codecs:      column(func(b *strings.Builder, w *Write) { quoteElement(b, w.Codec) }),
		louds:       column(func(b *strings.Builder, w *Write) { b.WriteString(strconv.FormatBool(w.Loud)) }),
		ttls: column(func(b *strings.Builder, w *Write) {
			if w.TTL == Never {
				number(b, -1)
			} else {
				number(b, w.TTL.Microseconds())
			}
		}),
		sizes: column(func(b *strings.Builder, w *Write) {
			if w.Value == nil {
				number(b, -1)
			} else {
				number(b, int64(len(w.Value)))
			}
		}),
		values: make([]byte, 0, bytes),
	}
	for i := range ws {
		p.values = append(p.values, ws[i].Value...)
	}
	return p
}
