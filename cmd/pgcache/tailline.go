package main

import (
	"fmt"
)

// line prints one line, and says whether it was the last.
func (f *follower) line(e eventJSON) (done bool) {
	a, s := f.a, style(f.a.colors())
	counts := e.Kind != "listening" && e.Kind != "lost"
	switch {
	case a.global.json:
		e.Time = e.Time.UTC()
		writeJSON(a.out, e) //nolint:errcheck // the next one will fail too
	case e.Kind == "listening":
		fmt.Fprintln(a.errs, s.dim("listening on "+printable(f.t.Names.Channel)))
	case e.Kind == "lost":
		fmt.Fprintln(a.errs, s.red(e.Error))
	default:
		room := whoWidth(a.width())
		if !f.headed {
			f.headed = true
			fmt.Fprintln(a.out, s.dim(fmt.Sprintf("%-12s  %8s  %-*s  %s", "TIME", "LATE", room, "WHO", "KEY")))
		}
		late := "-"
		if e.LateMS != nil {
			late = fmt.Sprintf("%.1fms", *e.LateMS)
		}
		key := printable(e.name)
		if e.All {
			key = s.yellow("* everything")
		}
		fmt.Fprintf(a.out, "%-12s  %8s  %s  %s\n", e.Time.Format("15:04:05.000"), late, s.cyan(fmt.Sprintf("%-*s", room, clip(who(e), room))), key)
	}
	if counts && f.left > 0 {
		f.left--
		return f.left == 0
	}
	return false
}

// whoWidth is how wide the column WHO is on a terminal of some width; 0: it is none. Keys have most of the room that is left.
func whoWidth(terminal int) int {
	const most, least, others = 40, 14, 12 + 2 + 8 + 2 + 2
	if terminal == 0 {
		return most
	}
	return min(most, max(least, (terminal-others)/2))
}

// who is who published, in a few words.
func who(e eventJSON) string {
	w := e.Kind
	switch {
	case e.Node != "":
		w += fmt.Sprintf(" by %s (%d ms)", e.Node, e.WindowMS)
	case e.Kind == "unknown":
		w = "unknown format"
	}
	by := e.Application
	if by == "" {
		by = e.Role
	}
	if by == "" {
		by = fmt.Sprint("pid ", e.PID)
	}
	return w + ", " + printable(by)
}

// clip cuts text at a number of characters.
func clip(text string, most int) string {
	if r := []rune(text); len(r) > most {
		return string(r[:most-1]) + "…"
	}
	return text
}
