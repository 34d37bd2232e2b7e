package codectest

import (
	"errors"
	"flag"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"github.com/pgcache/go/codec"
)

var update = flag.Bool("codectest.update", false, "write the golden files that are missing, and leave the others alone")

func testGolden(t *testing.T, c codec.Codec, folder string) {
	known := make(map[string]bool)
	for _, s := range samples() {
		path := filepath.Join(folder, s.name+".golden")
		known[path] = true
		data, err := os.ReadFile(path)
		if errors.Is(err, fs.ErrNotExist) && *update {
			data = marshal(t, c, s.value)
			err = write(path, data)
		}
		if err != nil {
			t.Errorf("%v; go test -codectest.update writes a golden file that is missing", err)
			continue
		}
		if got, err := s.decode(c, data); err != nil {
			t.Errorf("%s: Unmarshal: %v", path, err)
		} else if diff := diff(s.value, got); diff != "" {
			t.Errorf("%s decodes to another value than it used to (-want +got):\n%s", path, diff)
		}
	}
	files, err := filepath.Glob(filepath.Join(folder, "*.golden"))
	if err != nil {
		t.Error(err)
	}
	for _, path := range files {
		if !known[path] {
			t.Errorf("%s holds no value that the test knows: old rows may hold it, so keep testing it", path)
		}
	}
}

func write(path string, data []byte) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	return os.WriteFile(path, data, 0o644)
}
