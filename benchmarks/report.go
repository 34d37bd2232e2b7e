package main

import (
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

// column is one figure of a table.
type column struct {
	title, metric string
	format        func(v float64) string
}

func ops(title, metric string) column     { return column{title, metric, thousands} }
func count(title, metric string) column   { return column{title, metric, small} }
func inBytes(title, metric string) column { return column{title, metric, megabytes} }
func nanos(title, metric string) column   { return column{title, metric, digits} }
func millis(title, metric string) column  { return column{title + " (ms)", metric, digits} }

// ms shows microseconds as milliseconds.
func ms(title, metric string) column {
	return column{title + " (ms)", metric, func(v float64) string { return digits(v / 1000) }}
}

func percent(title, metric string) column {
	return column{title, metric, func(v float64) string { return strconv.FormatFloat(100*v, 'f', 1, 64) + " %" }}
}

// digits shows three of them.
func digits(v float64) string {
	if v == 0 {
		return "0"
	}
	return strconv.FormatFloat(v, 'f', max(0, 2-int(math.Floor(math.Log10(math.Abs(v))))), 64)
}

// small shows whole numbers as such.
func small(v float64) string {
	if v == math.Trunc(v) {
		return thousands(v)
	}
	return digits(v)
}

func thousands(v float64) string {
	s := strconv.FormatFloat(v, 'f', 0, 64)
	for i := len(s) - 3; i > 0 && s[i-1] != '-'; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}

func megabytes(v float64) string { return digits(v/(1<<20)) + " MB" }

const notRun = "not run"

// table is a table of Markdown with its columns aligned, to be read on a terminal too.
func table(out io.Writer, head []string, rows [][]string) {
	widths := make([]int, len(head))
	for _, row := range append([][]string{head}, rows...) {
		for i, cell := range row {
			widths[i] = max(widths[i], utf8.RuneCountInString(cell), 2)
		}
	}
	line := func(row []string, left func(i int) bool) {
		for i, cell := range row {
			space := strings.Repeat(" ", widths[i]-utf8.RuneCountInString(cell))
			if left(i) {
				fmt.Fprintf(out, "| %s%s ", cell, space)
			} else {
				fmt.Fprintf(out, "| %s%s ", space, cell)
			}
		}
		fmt.Fprintln(out, "|")
	}
	words := func(i int) bool { return i == 0 || !numeric(rows, i) }
	line(head, words)
	for i, w := range widths {
		if words(i) {
			fmt.Fprintf(out, "|%s", strings.Repeat("-", w+2))
		} else {
			fmt.Fprintf(out, "|%s:", strings.Repeat("-", w+1))
		}
	}
	fmt.Fprintln(out, "|")
	for _, row := range rows {
		line(row, words)
	}
}

// numeric says whether a column is of numbers, as far as it is filled.
func numeric(rows [][]string, i int) bool {
	return !slices.ContainsFunc(rows, func(row []string) bool {
		return row[i] != "" && row[i] != notRun && (row[i][0] < '0' || row[i][0] > '9')
	})
}

// write writes the table of one shape.
func (r Result) write(out io.Writer) {
	s := shapes[slices.IndexFunc(shapes, func(s shape) bool { return s.name == r.Shape })]
	fmt.Fprintf(out, "\n## %s\n\n%s\n\n", s.name, s.about)
	all := r.medians()
	lines, backends := r.lines()
	var columns []column
	for _, c := range s.columns {
		// Only what was measured: a table of reads has no columns of writes.
		if slices.ContainsFunc(r.Samples, func(sample Sample) bool { _, ok := sample.Metrics[c.metric]; return ok }) {
			columns = append(columns, c)
		}
	}
	head := []string{"backend"}
	named := len(lines) > 1 || len(lines) == 1 && lines[0] != ""
	if named {
		head = []string{"", "backend"}
	}
	for _, c := range columns {
		head = append(head, c.title)
	}
	var rows [][]string
	row := func(line, backend string) []string {
		if named {
			return []string{line, backend}
		}
		return []string{backend}
	}
	for _, line := range lines {
		for _, backend := range backends[line] {
			cells := row(line, backend)
			for _, c := range columns {
				cell := ""
				if v, ok := all[line][backend][c.metric]; ok {
					cell = c.format(v)
				}
				cells = append(cells, cell)
			}
			rows = append(rows, cells)
		}
	}
	for _, backend := range r.NotRun {
		cells := row("", backend)
		for i := range columns {
			cells = append(cells, map[bool]string{true: notRun}[i == 0])
		}
		rows = append(rows, cells)
	}
	table(out, head, rows)
}

// publish prints the tables and the targets of what was measured. Into folder it writes them, and the charts, of all shapes that
// have figures there: a run of some shapes leaves the others as they are.
func publish(results []Result, folder string, out io.Writer) error {
	if _, err := io.WriteString(out, render(results)); err != nil || folder == "" {
		return err
	}
	all, err := load(folder)
	if err != nil {
		return err
	}
	return errors.Join(os.WriteFile(filepath.Join(folder, "results.md"), []byte(render(all)), 0o644), writeCharts(all, folder))
}

// render is results.md.
func render(results []Result) string {
	var text strings.Builder
	text.WriteString("# Figures\n\n")
	text.WriteString(results[0].Run.String())
	for _, r := range results {
		r.write(&text)
		if !r.Run.Started.Equal(results[0].Run.Started) {
			fmt.Fprintf(&text, "\nOf another run:\n\n%s", r.Run)
		}
	}
	writeTargets(&text, results)
	return text.String()
}
