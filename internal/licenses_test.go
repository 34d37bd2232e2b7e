package internal_test

import (
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// licenseTexts are pieces of the licenses that dependencies may have, each of which lets everybody use, change and pass on
// the library.
var licenseTexts = map[string]string{
	"MIT":    "permission is hereby granted, free of charge, to any person obtaining a copy",
	"Apache": "apache license version 2.0",
	"BSD":    "redistribution and use in source and binary forms, with or without modification, are permitted",
	"ISC":    "permission to use, copy, modify, and/or distribute this software for any purpose with or without fee is hereby granted",
	"none":   "been put into the public domain", // github.com/xi2/xz
	"MPL":    "mozilla public license version 2.0",
}

// licenseOf returns which of them a folder has in a file, or "".
func licenseOf(dir string) (string, error) {
	files, err := os.ReadDir(dir)
	if err != nil {
		return "", err
	}
	for _, f := range files {
		name := strings.ToUpper(f.Name())
		if f.IsDir() || !strings.HasPrefix(name, "LICENSE") && !strings.HasPrefix(name, "LICENCE") && !strings.HasPrefix(name, "COPYING") {
			continue
		}
		text, err := os.ReadFile(filepath.Join(dir, f.Name()))
		if err != nil {
			return "", err
		}
		if kind := licenseIn(string(text)); kind != "" {
			return kind, nil
		}
	}
	return "", nil
}

func licenseIn(text string) string {
	words := strings.ToLower(strings.Join(strings.Fields(text), " "))
	words = strings.NewReplacer("license, version", "license version").Replace(words)
	words = strings.ReplaceAll(words, "modify, and distribute", "modify, and/or distribute")
	for kind, piece := range licenseTexts {
		if strings.Contains(words, piece) {
			return kind
		}
	}
	return ""
}

// TestLicenses: every module that a package of ours or one of its tests is built from is under a license that lets
// everybody use it.
func TestLicenses(t *testing.T) {
	t.Parallel()
	if licenseIn("GNU GENERAL PUBLIC LICENSE Version 3") != "" {
		t.Fatal("it takes any license")
	}
	cmd := exec.CommandContext(t.Context(), "go", "list", "-deps", "-test", "-json=Module", "./...")
	cmd.Dir = ".."
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	dirs := map[string]string{}
	for decoder := json.NewDecoder(strings.NewReader(string(out))); ; {
		var p struct{ Module *struct{ Path, Dir string } }
		if err := decoder.Decode(&p); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		if p.Module != nil {
			dirs[p.Module.Path] = p.Module.Dir
		}
	}
	if len(dirs) < 5 {
		t.Fatalf("only %d modules found", len(dirs))
	}
	for path, dir := range dirs {
		kind, err := licenseOf(dir)
		if err != nil || kind == "" {
			t.Errorf("%s: no license that we know in %s, %v", path, dir, err)
		} else {
			t.Logf("%-45s %s", path, kind)
		}
	}
}
