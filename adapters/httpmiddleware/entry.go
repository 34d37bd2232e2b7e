package httpmiddleware

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"time"
)

// entry is a stored response, or the mark of a resource. Nobody changes it: hits share it.
type entry struct {
	Status int           `json:"status,omitempty"` // 0: it is a mark
	Header http.Header   `json:"header,omitempty"`
	Vary   []string      `json:"vary,omitempty"`   // fields of the request that the response depends on
	Mark   uint64        `json:"mark,omitempty"`   // of a mark: a random number that is part of the rows of its responses, see store
	Stored int64         `json:"stored,omitempty"` // when, in Unix milliseconds
	Age    time.Duration `json:"age,omitempty"`    // that it had then
	// Lifetime is up to which age it is fresh, StaleIfError for how long after that it may be served where the handler fails.
	Lifetime     time.Duration `json:"lifetime,omitempty"`
	StaleIfError time.Duration `json:"stale_if_error,omitempty"`

	Pass  bool   `json:"pass,omitempty"`  // no response: it is not stored
	Again bool   `json:"again,omitempty"` // no response: ask again
	Body  []byte `json:"-"`
}

// age is e's age now, by this node's clock.
func (e *entry) age() time.Duration {
	return e.Age + max(0, time.Duration(time.Now().UnixMilli()-e.Stored)*time.Millisecond)
}

// ttl is how long e may be stored from now on, which is no longer than most; 0 or less: not at all.
func (e *entry) ttl(most time.Duration) time.Duration {
	return min(e.Lifetime-e.age(), most)
}

// serve answers r with e.
func (e *entry) serve(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	for name, values := range e.Header {
		if name == "Vary" {
			values = append(h[name], values...)
		}
		h[name] = slices.Clone(values)
	}
	h.Set("Age", strconv.FormatInt(int64(e.age()/time.Second), 10))
	h.Set("Cache-Status", "pgcache; hit")
	if left := e.Lifetime - e.age(); left < 0 {
		h.Set("Cache-Status", fmt.Sprintf("pgcache; hit; ttl=%d", int64(left/time.Second)))
	}
	if e.Status == http.StatusOK && notModified(r, e.Header) {
		writeNotModified(w)
		return
	}
	if e.Status != http.StatusNoContent {
		h.Set("Content-Length", strconv.Itoa(len(e.Body)))
	}
	w.WriteHeader(e.Status)
	if r.Method != http.MethodHead {
		w.Write(e.Body) //nolint:errcheck // the client has gone
	}
}

func writeNotModified(w http.ResponseWriter) {
	for _, name := range []string{"Content-Length", "Content-Type", "Content-Encoding", "Content-Language"} {
		w.Header().Del(name)
	}
	w.WriteHeader(http.StatusNotModified)
}

// entryCodec is the format of the rows: the length of a JSON object, the object, the body.
type entryCodec struct{}

func (entryCodec) Name() string { return "http1" }

func (entryCodec) Marshal(v any) ([]byte, error) {
	e, ok := v.(*entry)
	if !ok {
		return nil, fmt.Errorf("%T is no response", v)
	}
	head, err := json.Marshal(e)
	if err != nil {
		return nil, err
	}
	data := binary.AppendUvarint(make([]byte, 0, binary.MaxVarintLen32+len(head)+len(e.bodyOrNone())), uint64(len(head)))
	return append(append(data, head...), e.bodyOrNone()...), nil
}

func (e *entry) bodyOrNone() []byte {
	if e == nil {
		return nil
	}
	return e.Body
}

func (entryCodec) Unmarshal(data []byte, v any) error {
	dst, ok := v.(**entry)
	if !ok {
		return fmt.Errorf("%T is no response", v)
	}
	n, size := binary.Uvarint(data)
	if size <= 0 || n > uint64(len(data)-size) {
		return errors.New("the head is cut off")
	}
	head, body := data[size:size+int(n)], data[size+int(n):]
	if err := json.Unmarshal(head, dst); err != nil {
		return errors.New("the head is not JSON")
	}
	if *dst != nil && len(body) > 0 {
		(*dst).Body = bytes.Clone(body)
	}
	return nil
}
