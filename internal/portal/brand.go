package portal

import (
	"errors"
	"fmt"
	"math"
	"net/http"
	"os"
	"strconv"
	"strings"

	"github.com/merlon-dev/merlon"
	"github.com/merlon-dev/merlon/internal/webpage"
)

const (
	defaultColor = "#2f4b8f"
	darkCard     = "#171d26" // as in portal.css
	readable     = 4.5       // WCAG 2.2, 1.4.3 (AA)
	maxLogo      = 256 << 10
	maxBrand     = 60
)

// static is where the files of the pages are.
const static = Prefix + "static/"

// logoTypes are the pictures that are shown, and what their files begin with
// is what decides. SVG is not among them.
var logoTypes = map[string]string{
	"image/png": ".png", "image/jpeg": ".jpg", "image/gif": ".gif", "image/webp": ".webp",
}

func loadLogo(path string) (*webpage.File, error) {
	info, err := os.Stat(path)
	switch {
	case err != nil:
		return nil, err
	case !info.Mode().IsRegular() || info.Size() > maxLogo:
		return nil, errors.New("must be a file of at most 256 KiB")
	}
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	media := http.DetectContentType(b)
	ending, ok := logoTypes[media]
	if !ok || len(b) > maxLogo {
		return nil, errors.New("must be a PNG, JPEG, GIF or WebP picture; SVG files can hold scripts")
	}
	return webpage.NewFile(static+"logo"+ending, b, media), nil
}

// A color is one of sRGB, each part from 0 to 1.
type color [3]float64

func parseColor(s string) (color, error) {
	var c color
	digits, ok := strings.CutPrefix(s, "#")
	if !ok || len(digits) != 6 {
		return c, errors.New(`must be written "#rrggbb"`)
	}
	for i := range c {
		n, err := strconv.ParseUint(digits[2*i:2*i+2], 16, 8)
		if err != nil {
			return c, errors.New(`must be written "#rrggbb"`)
		}
		c[i] = float64(n) / 255
	}
	return c, nil
}

func (c color) String() string {
	return fmt.Sprintf("#%02x%02x%02x", byte(math.Round(c[0]*255)), byte(math.Round(c[1]*255)), byte(math.Round(c[2]*255)))
}

// luminance is the relative luminance that WCAG 2.2 defines.
func (c color) luminance() float64 {
	weights := [...]float64{0.2126, 0.7152, 0.0722}
	sum := 0.0
	for i, v := range c {
		if v <= 0.04045 {
			v /= 12.92
		} else {
			v = math.Pow((v+0.055)/1.055, 2.4)
		}
		sum += weights[i] * v
	}
	return sum
}

func contrast(a, b color) float64 {
	l, m := a.luminance(), b.luminance()
	return (max(l, m) + 0.05) / (min(l, m) + 0.05)
}

// lighter mixes c with white until it can be read on ground.
func (c color) lighter(ground color) color {
	for mix := 0.0; mix < 1; mix += 0.02 {
		var out color
		for i := range c {
			out[i] = c[i] + (1-c[i])*mix
		}
		if contrast(out, ground) >= readable+0.3 {
			return out
		}
	}
	return color{1, 1, 1}
}

// shades returns the color on light pages and on dark ones.
func (b Brand) shades() (light, dark color, err error) {
	text := b.Color
	if text == "" {
		text = defaultColor
	}
	light, err = parseColor(text)
	if err != nil {
		return light, dark, merlon.BadSetting("color", b.Color, err.Error())
	}
	if c := contrast(light, color{1, 1, 1}); c < readable {
		return light, dark, merlon.BadSetting("color", b.Color,
			fmt.Sprintf("must be darker: its contrast on white is %.1f, and nobody should have to read less than 4.5", c))
	}
	ground, err := parseColor(darkCard)
	return light, light.lighter(ground), err
}

func (b Brand) check() error {
	if len(b.Name) > maxBrand || strings.ContainsFunc(b.Name, func(r rune) bool { return r < ' ' || r == 0x7f }) {
		return merlon.BadSetting("name", b.Name, "must be one line of at most 60 bytes")
	}
	return nil
}
