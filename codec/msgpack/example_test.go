package msgpack_test

import (
	"fmt"
	"time"

	"github.com/pgcache/go/codec/msgpack"
)

func Example() {
	type session struct {
		User    string    `msgpack:"u"`
		Expires time.Time `msgpack:"e"`
		Notes   string    `msgpack:"n,omitempty"`
	}
	c := msgpack.Codec{}
	data, err := c.Marshal(session{User: "ada", Expires: time.Date(2030, 1, 2, 3, 4, 5, 0, time.UTC)})
	if err != nil {
		panic(err)
	}
	fmt.Printf("%d bytes: %x\n", len(data), data)

	var s session
	if err := c.Unmarshal(data, &s); err != nil {
		panic(err)
	}
	fmt.Println(s.User, s.Expires.UTC())
	// Output:
	// 15 bytes: 82a175a3616461a165d6ff70dd5525
	// ada 2030-01-02 03:04:05 +0000 UTC
}
