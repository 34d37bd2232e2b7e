package main

import (
	"cmp"
	"errors"
	"fmt"
	"image/color"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/font"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/text"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
	"gonum.org/v1/plot/vg/vgsvg"
)

// colors are the backends' in all charts; they differ in lightness too.
var colors = map[string]color.Color{
	pgCache:    color.RGBA{0x1f, 0x5f, 0xa8, 0xff},
	pgNoLocal:  color.RGBA{0x1f, 0x5f, 0xa8, 0xff},
	pgPerWrite: color.RGBA{0x9e, 0xc4, 0xe8, 0xff},
	valkey:     color.RGBA{0xc2, 0x4b, 0x3a, 0xff},
	rueidisCSC: color.RGBA{0xf0, 0xa3, 0x8c, 0xff},
	rueidisRaw: color.RGBA{0xf0, 0xa3, 0x8c, 0xff},
}

// names of the backends in the charts, where there is little room.
var shortNames = map[string]string{
	pgCache: "pgcache", pgNoLocal: "pgcache", pgPerWrite: "NOTIFY per write", valkey: "go-redis", rueidisCSC: "rueidis", rueidisRaw: "rueidis",
}

// panel is one group of bars in the chart beside Redis.
type panel struct {
	title, shape, line, metric string
	backends                   []string
}

var panels = []panel{
	{"seed\nwrites/s", "seed", "", "write.ops", []string{pgCache, pgPerWrite, valkey, rueidisCSC}},
	{"seed\nreads/s", "seed", "", "read.ops", []string{pgCache, pgPerWrite, valkey, rueidisCSC}},
	{"service\nops/s", "service", "", "ops", []string{pgCache, pgPerWrite, valkey, rueidisCSC}},
	{"remote Get\n64 callers, ops/s", "read", callersLine(64), "read.ops", []string{pgNoLocal, valkey, rueidisRaw}},
	{"Set, 48 nodes listen\n128 callers, ops/s", "write", listeningLine(48), "write.ops", []string{pgCache, pgPerWrite, valkey, rueidisRaw}},
}

// writeCharts draws what was measured; a chart without figures is not drawn.
func writeCharts(results []Result, folder string) error {
	f := figures{}
	for _, r := range results {
		f[r.Shape] = r.medians()
	}
	return errors.Join(besideRedis(f, filepath.Join(folder, "beside-redis.svg")), listeners(f, filepath.Join(folder, "listeners.svg")))
}

// besideRedis is a row of bar charts, each with an axis of its own: the shapes differ by orders of magnitude.
func besideRedis(f figures, path string) error {
	var row []*plot.Plot
	for _, p := range panels {
		bars, err := p.draw(f)
		if err != nil {
			return err
		}
		if bars != nil {
			row = append(row, bars)
		}
	}
	if len(row) == 0 {
		return nil
	}
	const width, height = 5.2 * vg.Centimeter, 7 * vg.Centimeter
	canvas := vgsvg.New(vg.Length(len(row))*width, height)
	tiles := draw.Tiles{Rows: 1, Cols: len(row), PadX: vg.Points(6), PadTop: vg.Points(4), PadBottom: vg.Points(4), PadLeft: vg.Points(4), PadRight: vg.Points(4)}
	area := draw.New(canvas)
	area.SetColor(color.White)
	area.Fill(area.Path())
	for i, c := range plot.Align([][]*plot.Plot{row}, tiles, area)[0] {
		row[i].Draw(c)
	}
	return save(canvas, path)
}

func (p panel) draw(f figures) (*plot.Plot, error) {
	chart := newPlot(p.title)
	var names []string
	top := 0.0
	for _, backend := range p.backends {
		v := f.get(p.shape, p.line, backend, p.metric)
		if math.IsNaN(v) {
			continue
		}
		bar, err := plotter.NewBarChart(plotter.Values{v}, vg.Points(22))
		if err != nil {
			return nil, err
		}
		bar.XMin, bar.Color, bar.LineStyle.Width = float64(len(names)), colors[backend], 0
		label, err := plotter.NewLabels(plotter.XYLabels{XYs: plotter.XYs{{X: bar.XMin, Y: v}}, Labels: []string{brief(v)}})
		if err != nil {
			return nil, err
		}
		label.TextStyle[0].XAlign, label.TextStyle[0].YAlign = text.XCenter, text.YBottom
		label.TextStyle[0].Font.Size = vg.Points(8)
		label.Offset.Y = vg.Points(2)
		chart.Add(bar, label)
		names = append(names, shortNames[backend])
		top = max(top, v)
	}
	if len(names) == 0 {
		return nil, nil
	}
	chart.NominalX(names...)
	chart.X.Tick.Label.Rotation = math.Pi / 6
	chart.X.Tick.Label.XAlign, chart.X.Tick.Label.YAlign = text.XRight, text.YTop
	chart.X.Min, chart.X.Max = -.6, float64(len(names))-.4
	chart.Y.Min, chart.Y.Max = 0, top*1.12
	return chart, nil
}

// listeners shows write throughput against the number of listening nodes.
func listeners(f figures, path string) error {
	counts := fullSizes().listening
	chart := newPlot("Overwrites by 4 nodes x 32 callers, while so many nodes listen")
	chart.X.Label.Text, chart.Y.Label.Text = "listening nodes", "writes/s"
	chart.X.Scale = plot.LogScale{}
	var ticks plot.ConstantTicks
	for _, n := range counts {
		ticks = append(ticks, plot.Tick{Value: float64(n), Label: fmt.Sprint(n)})
	}
	chart.X.Tick.Marker = ticks
	var ends []lineEnd
	for _, backend := range writeBackends {
		var points plotter.XYs
		for _, n := range counts {
			if v := f.get("write", listeningLine(n), backend, "write.ops"); !math.IsNaN(v) {
				points = append(points, plotter.XY{X: float64(n), Y: v})
			}
		}
		if len(points) == 0 {
			continue
		}
		line, dots, err := plotter.NewLinePoints(points)
		if err != nil {
			return err
		}
		line.Color, line.Width = colors[backend], vg.Points(2)
		dots.Color, dots.Shape, dots.Radius = colors[backend], draw.CircleGlyph{}, vg.Points(3)
		chart.Add(line, dots)
		name := shortNames[backend]
		if backend == valkey || backend == rueidisRaw {
			name += " (publishes nothing)"
		}
		ends = append(ends, lineEnd{name, points[len(points)-1], colors[backend]})
	}
	if len(ends) == 0 {
		return nil
	}
	chart.Y.Min = 0
	if err := labelEnds(chart, ends); err != nil {
		return err
	}
	chart.X.Min, chart.X.Max = float64(slices.Min(counts)), 3*float64(slices.Max(counts)) // room for the labels
	canvas := vgsvg.New(16*vg.Centimeter, 9*vg.Centimeter)
	area := draw.New(canvas)
	area.SetColor(color.White)
	area.Fill(area.Path())
	chart.Draw(draw.Crop(area, vg.Points(6), -vg.Points(14), vg.Points(6), -vg.Points(6)))
	return save(canvas, path)
}

// lineEnd is the last point of a line, which its name stands beside.
type lineEnd struct {
	name  string
	at    plotter.XY
	color color.Color
}

// labelEnds writes the names of lines beside their last points, moved apart where the points are close to each other.
func labelEnds(chart *plot.Plot, ends []lineEnd) error {
	const gap = .06 // of the height of the chart
	slices.SortFunc(ends, func(a, b lineEnd) int { return cmp.Compare(a.at.Y, b.at.Y) })
	for i, end := range ends {
		if i > 0 {
			end.at.Y = max(end.at.Y, ends[i-1].at.Y+gap*chart.Y.Max)
			ends[i] = end
		}
		label, err := plotter.NewLabels(plotter.XYLabels{XYs: plotter.XYs{end.at}, Labels: []string{end.name}})
		if err != nil {
			return err
		}
		label.TextStyle[0].YAlign = text.YCenter
		label.TextStyle[0].Font.Size, label.TextStyle[0].Color = vg.Points(9), end.color
		label.Offset.X = vg.Points(6)
		chart.Add(label)
	}
	chart.Y.Max = max(chart.Y.Max, ends[len(ends)-1].at.Y*(1+gap))
	return nil
}

// sans are fonts of the same widths, of which every viewer has one.
const sans = "Liberation Sans,Arial,Helvetica,sans-serif"

func init() {
	plot.DefaultFont = font.Font{Typeface: "Liberation", Variant: "Sans"}
	plotter.DefaultFont = plot.DefaultFont
}

func newPlot(title string) *plot.Plot {
	p := plot.New()
	p.Title.Text, p.Title.TextStyle.Font.Size, p.Title.Padding = title, vg.Points(10), vg.Points(6)
	for _, axis := range []*plot.Axis{&p.X, &p.Y} {
		axis.Label.TextStyle.Font.Size = vg.Points(9)
		axis.Tick.Label.Font.Size = vg.Points(8)
	}
	p.Y.Tick.Marker = plot.TickerFunc(func(low, high float64) (ticks []plot.Tick) {
		for _, t := range (plot.DefaultTicks{}).Ticks(low, high) {
			if t.Label != "" {
				t.Label = brief(t.Value)
			}
			ticks = append(ticks, t)
		}
		return ticks
	})
	grid := plotter.NewGrid()
	grid.Vertical.Width = 0
	grid.Horizontal.Color = color.Gray{0xe0}
	p.Add(grid)
	return p
}

// brief shows 53,420 as 53.4k.
func brief(v float64) string {
	unit := ""
	switch {
	case v >= 1e6:
		v, unit = v/1e6, "M"
	case v >= 1e3:
		v, unit = v/1e3, "k"
	}
	return strconv.FormatFloat(math.Round(v*10)/10, 'f', -1, 64) + unit
}

func save(canvas *vgsvg.Canvas, path string) error {
	var svg strings.Builder
	if _, err := canvas.WriteTo(&svg); err != nil {
		return err
	}
	return os.WriteFile(path, []byte(strings.ReplaceAll(svg.String(), "font-family:Liberation Sans", "font-family:"+sans)), 0o644)
}
