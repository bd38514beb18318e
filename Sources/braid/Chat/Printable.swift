extension String {
    /// The text without anything that a terminal would act upon: control characters, of which only line breaks and tabs
    /// are kept, and the marks that reverse the direction of text. Models and servers may write escape sequences.
    package var printable: String {
        var scalars = String.UnicodeScalarView()
        for scalar in unicodeScalars {
            switch scalar.value {
            case 0x09, 0x0A: scalars.append(scalar)
            // A carriage return would overwrite the line.
            case 0x0D: continue
            // Unicode has pictures of the control characters of ASCII.
            case 0..<0x20: scalars.append(Unicode.Scalar(0x2400 + scalar.value)!)
            case 0x7F: scalars.append("\u{2421}")
            case 0x80..<0xA0, 0x202A...0x202E, 0x2066...0x2069: scalars.append("\u{FFFD}")
            default: scalars.append(scalar)
            }
        }
        return String(scalars)
    }

    /// The printable text as one line of at most 500 characters.
    package var printableLine: String {
        String(printable.split(whereSeparator: \.isWhitespace).joined(separator: " ").prefix(500))
    }
}
