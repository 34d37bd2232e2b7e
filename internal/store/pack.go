package store

import (
	"slices"
	"strconv"
	"strings"
)

// packed is a list of writes as the columns of one statement: array literals with an element for each row.
type packed struct {
	keys, versions, ttls, codecs, los, sizes string // a row's value begins at lo (from 1) in values and has size bytes
	tags, stales                             string // empty: no row has any
	values                                   []byte // the values of all rows, one after the other
}

// pack makes the columns. A ttl of -1 is Never, a size of -1 a tombstone.
func pack(ws []*Write) packed {
	lo := 1
	bytes := 0
	for i := range ws {
		bytes += len(ws[i].Value)
	}
	number := func(b *strings.Builder, n int64) {
		var buf [20]byte
		b.Write(strconv.AppendInt(buf[:0], n, 10))
	}
	column := func(element func(b *strings.Builder, w *Write)) string {
		return arrayOf(len(ws), func(b *strings.Builder, i int) { element(b, ws[i]) })
	}
	p := packed{
		keys:     column(func(b *strings.Builder, w *Write) { quoteElement(b, w.Key) }),
		versions: column(func(b *strings.Builder, w *Write) { number(b, w.Version) }),
		codecs:   column(func(b *strings.Builder, w *Write) { quoteElement(b, w.Codec) }),
		los: column(func(b *strings.Builder, w *Write) {
			number(b, int64(lo))
			lo += len(w.Value)
		}),
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
	tags, stales := false, false
	for _, w := range ws {
		p.values = append(p.values, w.Value...)
		tags, stales = tags || w.Tags != nil, stales || w.Stale > 0
	}
	if tags {
		p.tags = tagLists(ws, func(w *Write) []string { return w.Tags })
	}
	if stales {
		p.stales = column(func(b *strings.Builder, w *Write) {
			if w.Stale <= 0 || w.TTL == Never {
				b.WriteString("NULL")
				return
			}
			number(b, w.Stale.Microseconds())
		})
	}
	return p
}

// tagLists is a column of lists of tags, NULL where of returns nil.
func tagLists(ws []*Write, of func(w *Write) []string) string {
	return arrayOf(len(ws), func(b *strings.Builder, i int) {
		tags := of(ws[i])
		if tags == nil {
			b.WriteString("NULL")
			return
		}
		// An array within the array, as text.
		quoteElement(b, arrayOf(len(tags), func(b *strings.Builder, i int) { quoteElement(b, tags[i]) }))
	})
}

// packLoads are the columns that only loads have.
func packLoads(ws []*Write) (fences, incarnations, looked, publishNew, snapshots, leftTags string) {
	column := func(element func(w *Write) string) string {
		return arrayOf(len(ws), func(b *strings.Builder, i int) { b.WriteString(element(ws[i])) })
	}
	if slices.ContainsFunc(ws, func(w *Write) bool { return w.Snapshot != "" }) {
		snapshots = arrayOf(len(ws), func(b *strings.Builder, i int) { quoteElement(b, ws[i].Snapshot) })
	}
	if slices.ContainsFunc(ws, func(w *Write) bool { return w.LeftTags != nil }) {
		leftTags = tagLists(ws, func(w *Write) []string { return w.LeftTags })
	}
	return column(func(w *Write) string { return strconv.FormatInt(w.Fence, 10) }),
		column(func(w *Write) string { return strconv.FormatInt(w.Incarnation, 10) }),
		column(func(w *Write) string { return strconv.FormatInt(w.Looked.Microseconds(), 10) }),
		column(func(w *Write) string { return strconv.FormatBool(w.PublishNew) }),
		snapshots, leftTags
}
