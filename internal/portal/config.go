package portal

// Config configures a [Portal]. The zero Config has Merlon's own look.
type Config struct {
	// Brand is what the pages look like. Example:
	//
	//	brand: {name: The Shop, color: "#0b6e4f", logo: shop.png}
	Brand Brand `yaml:"brand,omitempty"`
}

// Brand is how people recognise whose pages they are on.
type Brand struct {
	// Name is what the pages and letters call this place; at most 60 bytes.
	// Default: the site's host. Example:
	//
	//	name: The Shop
	Name string `yaml:"name,omitempty"`
	// Color is that of buttons and links, written #rrggbb. It must be dark
	// enough to be read on white (a contrast of 4.5, WCAG 2.2 AA); dark pages
	// have a lighter shade of it. Default: "#2f4b8f". Example:
	//
	//	color: "#0b6e4f"
	Color string `yaml:"color,omitempty"`
	// Logo is a picture shown above the name, up to 48 pixels high: a PNG,
	// JPEG, GIF or WebP file of at most 256 KiB. SVG files can hold scripts
	// and are refused. Default: none. Example:
	//
	//	logo: /etc/merlon/shop.png
	Logo string `yaml:"logo,omitempty"`
}
