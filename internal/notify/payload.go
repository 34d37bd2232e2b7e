// Package notify is the format of what nodes tell each other: which versions of which keys were written.
//
//	payload = head items | head "*"
//	head    = "1" node | "2"                   a flush of the change log, and who keeps that beat | told by a writing
//	                                           statement, or by a poll
//	node    = 8 hex digits
//	item    = length ":" key version+ ";"      length of key in bytes, decimal; version in 16 hex digits, newest first
//
// "*" says: forget everything. Version 0 is nobody's: it drops the key whatever is held. The first byte is the version of
// the format: a node that does not know it forgets everything, so old and new releases may run together.
package notify

import (
	"fmt"
	"strconv"
	"strings"
)

const (
	// Flush begins a payload drained from the change log.
	Flush = '1'
	// Inline begins a payload told by the statement that wrote.
	Inline = '2'
	// All is the body that says: forget everything.
	All = "*"

	versionDigits = 16
	nodeDigits    = 8
	// MaxPayload is the largest payload that Postgres takes, in bytes.
	MaxPayload = 7999
)

// AppendItem appends the item of one key and its versions, newest first.
func AppendItem(b []byte, key string, versions ...int64) []byte {
	b = strconv.AppendInt(b, int64(len(key)), 10)
	b = append(b, ':')
	b = append(b, key...)
	for _, v := range versions {
		const digits = "0123456789abcdef"
		for shift := 60; shift >= 0; shift -= 4 {
			b = append(b, digits[uint64(v)>>shift&15])
		}
	}
	return append(b, ';')
}

// One is the payload of a single write.
func One(key string, version int64) string {
	b := make([]byte, 0, len(key)+24)
	return string(AppendItem(append(b, Inline), key, version))
}

// Head begins the payloads of the flushes of a node.
func Head(node uint32) string { return fmt.Sprintf("%c%08x", Flush, node) }

// From returns the node that flushed payload; false if it is no flush.
func From(payload string) (node uint32, ok bool) {
	if len(payload) <= nodeDigits || payload[0] != Flush {
		return 0, false
	}
	n, err := strconv.ParseUint(payload[1:1+nodeDigits], 16, 32)
	return uint32(n), err == nil
}

// Parse calls item for every key in payload with its versions, newest first, and all where everything is to be
// forgotten. The slice of versions is reused from call to call. An error means that the payload can't be trusted: it
// may have named anything, so everything must be forgotten; item may have been called before.
func Parse(payload string, item func(key string, versions []int64), all func()) error {
	rest := ""
	if _, ok := From(payload); ok {
		rest = payload[1+nodeDigits:]
	} else if payload != "" && payload[0] == Inline {
		rest = payload[1:]
	} else {
		return fmt.Errorf("unknown format in payload %.40q", payload)
	}
	if rest == All {
		all()
		return nil
	}
	var buf [8]int64
	for rest != "" {
		head, tail, ok := strings.Cut(rest, ":")
		n, err := strconv.ParseUint(head, 10, 16)
		if !ok || err != nil || uint64(len(tail)) < n {
			return fmt.Errorf("bad key length in payload at %.40q", rest)
		}
		key, tail := tail[:n], tail[n:]
		versions := buf[:0]
		for len(tail) >= versionDigits && tail[0] != ';' {
			v, err := strconv.ParseUint(tail[:versionDigits], 16, 63)
			if err != nil {
				return fmt.Errorf("bad version in payload at %.40q", tail)
			}
			versions, tail = append(versions, int64(v)), tail[versionDigits:]
		}
		if len(versions) == 0 || tail == "" || tail[0] != ';' {
			return fmt.Errorf("bad item in payload at %.40q", rest)
		}
		item(key, versions)
		rest = tail[1:]
	}
	return nil
}
