// Package notify is the format of the messages in which changes are published: which versions of which keys were written.
//
//	message = kind cache sender items | kind cache sender "*"
//	kind    = "1" | "2"          a flush of the change log | published by a writing statement or a trigger
//	        | "3" | "4"          the same, and each key is a hash of the key: see HiddenKey
//	cache   = 8 hex digits       the cache's id, made by Migrate; 00000000: all caches on the channel
//	sender  = node window current number | ""
//	                             kinds 1 and 3 say who flushed, in 8 hex digits; its window in ms, in 4; how far that is
//	                             stretched now, in 4; the flush's number, in 4; all zeros: nobody; node 0 and a window: a node
//	                             that receives no notifications. Kinds 2 and 4 have no sender
//	item    = length ":" key version+ ";"      length of key in bytes, decimal; version in 16 hex digits, newest first
//	        | "t" length ":" tag id ";"        all entries with the tag were removed; id of the removal in 16 hex digits
//	        | "p" length ":" prefix id ";"     all entries whose keys begin with the prefix were, or too many to name have changed; then
//	                                           id is 0
//
// "*" says: forget everything. Version 0 belongs to no write: it invalidates the key whatever version a node has. A new format
// gets new kinds: a node that does not know a kind forgets everything, so old and new releases may run together. The SQL side of
// the format is cache_publish, cache_item and cache_remove in sqlc/migrations. Where keys are hidden a tag is a hash too, see
// HiddenTag, and the removal of a prefix is "*".
package notify

import (
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
)

const (
	// Flush begins a message of a flush of the change log.
	Flush = '1'
	// Inline begins a message of the statement or the trigger that wrote.
	Inline = '2'
	// FlushHidden and InlineHidden are the same where keys are hidden.
	FlushHidden, InlineHidden = '3', '4'
	// All is the body that says: forget everything.
	All = "*"
	// AnyCache as the id of a message says that it is for every cache on the channel.
	AnyCache = "00000000"
	// Nobody is the sender of a flush in no node's name.
	Nobody = "00000000000000000000"

	cacheDigits   = 8
	nodeDigits    = 8
	windowDigits  = 4
	numberDigits  = 4
	versionDigits = 16
	// MaxPayload is the largest payload that Postgres takes, in bytes.
	MaxPayload = 7999
)

// AppendItem appends the item of one key and its versions, newest first. Only tests use it: the messages of nodes are made by SQL.
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

// HiddenKey is what stands for key in a message where keys are hidden: the first 22 digits in base64 of the SHA-256 of secret and
// key. All secrets have the same length, 32 bytes.
func HiddenKey(secret []byte, key string) string {
	h := sha256.Sum256(append(slices.Clip(secret), key...))
	return base64.StdEncoding.EncodeToString(h[:])[:hiddenLength]
}

// hiddenLength is the length of a hidden key in bytes.
const hiddenLength = 22

// Sender is the sender in the messages of a flush by a node whose window is not stretched.
func Sender(node uint32, window time.Duration) string {
	return StretchedSender(node, window, window, 0)
}

// StretchedSender is Sender with the window that the node flushes by now, and the number of the flush. Windows are cut to 65 s.
func StretchedSender(node uint32, window, current time.Duration, number uint16) string {
	ms := func(d time.Duration) int64 { return min(max(d.Milliseconds(), 0), 1<<16-1) }
	return fmt.Sprintf("%08x%04x%04x%04x", node, ms(window), ms(current), number)
}

// UnnotifiedSender is the sender in the messages of a flush by a node that receives no notifications. Others do not take it for one that leads.
func UnnotifiedSender(window time.Duration) string { return StretchedSender(0, window, window, 0) }

// Unnotified says whether a message is of a flush by a node that receives no notifications.
func (m *Message) Unnotified() bool { return m.Flush && m.Node == 0 && m.Window > 0 }

// A Message is a payload taken apart.
type Message struct {
	Cache   string        // the id of the cache that it is about
	Flush   bool          // it is of a flush: only then the next four are set
	Node    uint32        // who flushed; 0: an unnotified node, or nobody
	Window  time.Duration // of that node, as configured
	Current time.Duration // that the node flushes by now: Window, or longer where it is stretched
	Number  uint16        // of the flush, as that node counts them
	Hidden  bool          // keys are hashes
	Body    string        // items, or All
}

// For says whether a message is for the cache of this id.
func (m *Message) For(cache string) bool { return m.Cache == cache || m.Cache == AnyCache }

// Parse takes a payload apart. An error means that the payload can't be trusted: it may have named anything, so
// everything must be forgotten.
func Parse(payload string) (Message, error) {
	bad := func() (Message, error) { return Message{}, fmt.Errorf("unknown format in payload %.40q", payload) }
	if len(payload) < 1+cacheDigits || payload[0] < Flush || payload[0] > InlineHidden {
		return bad()
	}
	m := Message{Cache: payload[1 : 1+cacheDigits], Hidden: payload[0] >= FlushHidden, Body: payload[1+cacheDigits:]}
	if _, err := strconv.ParseUint(m.Cache, 16, 32); err != nil {
		return bad()
	}
	if payload[0] == Inline || payload[0] == InlineHidden {
		return m, nil
	}
	if len(m.Body) < nodeDigits+2*windowDigits+numberDigits {
		return bad()
	}
	var numbers [4]uint64
	for i, digits := range []int{nodeDigits, windowDigits, windowDigits, numberDigits} {
		n, err := strconv.ParseUint(m.Body[:digits], 16, 32)
		if err != nil {
			return bad()
		}
		numbers[i], m.Body = n, m.Body[digits:]
	}
	m.Flush, m.Node = true, uint32(numbers[0])
	m.Window, m.Current = time.Duration(numbers[1])*time.Millisecond, time.Duration(numbers[2])*time.Millisecond
	m.Number = uint16(numbers[3])
	return m, nil
}

// Items calls item for every key in the message with its versions, newest first, and group for every group that was removed; or it
// calls all, where everything is to be forgotten. The slice of versions is reused from call to call. Items may return an error
// after it has called item or group: then everything must be forgotten.
func (m *Message) Items(item func(key string, versions []int64), group func(Group), all func()) error {
	rest := m.Body
	if rest == All {
		all()
		return nil
	}
	var buf [8]int64
	for rest != "" {
		if rest[0] == Tag || rest[0] == Prefix {
			g, tail, err := cutGroup(rest)
			if err != nil {
				return err
			}
			group(g)
			rest = tail
			continue
		}
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
