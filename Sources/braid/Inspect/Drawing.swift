import Foundation

/// A drawing consists of boxes and words in SVG, on a light background of its own so that it can be read on any page.
struct Drawing {
    enum Anchor: String {
        case start, middle, end
    }

    static let ink = "#1f2328"
    static let quiet = "#59636e"
    static let grey = "#eef1f4"
    static let edge = "#c4ccd4"

    let width: Double
    /// The vertical position at which the next section begins.
    var y = 0.0
    private var body: [String] = []

    init(width: Double) { self.width = width }

    mutating func box(
        _ x: Double, _ y: Double, _ width: Double, _ height: Double, fill: String, edge: String? = nil,
        radius: Double = 4
    ) {
        let stroke = edge.map { " stroke=\"\($0)\"" } ?? ""
        body.append(
            "<rect x=\"\(Self.number(x))\" y=\"\(Self.number(y))\" width=\"\(Self.number(width))\" "
                + "height=\"\(Self.number(height))\" rx=\"\(Self.number(radius))\" fill=\"\(fill)\"\(stroke)/>")
    }

    mutating func words(
        _ text: String, _ x: Double, _ y: Double, size: Double = 12, anchor: Anchor = .start, bold: Bool = false,
        fill: String = Drawing.ink
    ) {
        let weight = bold ? " font-weight=\"600\"" : ""
        body.append(
            "<text x=\"\(Self.number(x))\" y=\"\(Self.number(y))\" font-size=\"\(Self.number(size))\" "
                + "text-anchor=\"\(anchor.rawValue)\" fill=\"\(fill)\"\(weight)>\(Self.escaped(text))</text>")
    }

    mutating func arrow(_ x: Double, from top: Double, to bottom: Double) {
        body.append(
            "<path d=\"M\(Self.number(x)) \(Self.number(top))V\(Self.number(bottom))\" stroke=\"\(Self.quiet)\" "
                + "fill=\"none\" marker-end=\"url(#head)\"/>")
    }

    /// Returns the drawing as an SVG document.
    ///
    /// - Parameter title: A description for screen readers.
    func xml(title: String) -> String {
        let (width, height) = (Self.number(width), Self.number(y))
        return """
            <svg xmlns="http://www.w3.org/2000/svg" width="\(width)" height="\(height)" \
            viewBox="0 0 \(width) \(height)" role="img" font-family="Helvetica, Arial, 'DejaVu Sans', sans-serif">
            <title>\(Self.escaped(title))</title>
            <defs><marker id="head" viewBox="0 0 6 6" refX="5" refY="3" markerWidth="6" markerHeight="6" \
            orient="auto"><path d="M0 0L6 3L0 6z" fill="\(Self.quiet)"/></marker></defs>
            <rect x="0.5" y="0.5" width="\(Self.number(self.width - 1))" height="\(Self.number(y - 1))" rx="10" \
            fill="#ffffff" stroke="\(Self.edge)"/>
            \(body.joined(separator: "\n"))
            </svg>

            """
    }

    private static func number(_ value: Double) -> String {
        value == value.rounded() ? String(Int(value)) : String(format: "%.2f", value)
    }

    /// Escapes text for an XML document, and replaces control characters that XML cannot contain.
    static func escaped(_ text: String) -> String {
        var escaped = ""
        for scalar in text.unicodeScalars {
            switch scalar {
            case "&": escaped += "&amp;"
            case "<": escaped += "&lt;"
            case ">": escaped += "&gt;"
            case "\"": escaped += "&quot;"
            case "\u{0}"..<" ", "\u{FFFE}", "\u{FFFF}": escaped += "\u{FFFD}"
            default: escaped.unicodeScalars.append(scalar)
            }
        }
        return escaped
    }

    /// Returns a light colour for one of `places` places, evenly around the circle of hues.
    static func colour(_ place: Int, of places: Int) -> String {
        let hue = Double(place) / Double(max(places, 1)) * 6 + 3.5
        func channel(_ offset: Double) -> Int {
            let distance = (hue + offset).truncatingRemainder(dividingBy: 6)
            let value = max(0, min(1, abs(distance - 3) - 1))
            return Int(255 * (0.68 + 0.26 * value))
        }
        return String(format: "#%02x%02x%02x", channel(0), channel(4), channel(2))
    }
}
