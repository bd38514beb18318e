/// The properties of a character that pre-tokenizer patterns distinguish: the first letter of its general category,
/// `White_Space`, and two sets of DeepSeek's patterns.
struct CharacterClass: OptionSet {
    let rawValue: UInt8

    static let letter = CharacterClass(rawValue: 1)
    static let mark = CharacterClass(rawValue: 2)
    static let number = CharacterClass(rawValue: 4)
    static let punctuation = CharacterClass(rawValue: 8)
    static let symbol = CharacterClass(rawValue: 16)
    static let space = CharacterClass(rawValue: 32)
    /// Only carriage return and line feed.
    static let newline = CharacterClass(rawValue: 64)
    /// `[一-龥぀-ゟ゠-ヿ]`: U+4E00–9FA5 and U+3040–30FF.
    static let chineseOrKana = CharacterClass(rawValue: 128)

    /// Creates the class of a scalar as of Unicode 16. Later characters count as unassigned, so that a text has the
    /// same tokens whatever Unicode version the Swift runtime knows; 16 is the version of the reference tokenizer
    /// library.
    init(_ scalar: Unicode.Scalar) {
        let properties = scalar.properties
        var set: CharacterClass =
            switch properties.generalCategory {
            case .uppercaseLetter, .lowercaseLetter, .titlecaseLetter, .modifierLetter, .otherLetter: .letter
            case .nonspacingMark, .spacingMark, .enclosingMark: .mark
            case .decimalNumber, .letterNumber, .otherNumber: .number
            case .connectorPunctuation, .dashPunctuation, .openPunctuation, .closePunctuation, .initialPunctuation,
                .finalPunctuation, .otherPunctuation:
                .punctuation
            case .mathSymbol, .currencySymbol, .modifierSymbol, .otherSymbol: .symbol
            default: []
            }
        if let age = properties.age, age.major > 16 { set = [] }
        if properties.isWhitespace { set.insert(.space) }
        if scalar == "\r" || scalar == "\n" { set.insert(.newline) }
        if 0x4E00...0x9FA5 ~= scalar.value || 0x3040...0x30FF ~= scalar.value { set.insert(.chineseOrKana) }
        self = set
    }

    init(rawValue: UInt8) {
        self.rawValue = rawValue
    }
}

/// A text as UTF-8 with the class of every byte. All bytes of a character have the character's class, so a run of
/// characters of one class is a run of bytes.
struct ClassifiedText {
    let bytes: [UInt8]
    let classes: [UInt8]

    init(_ bytes: [UInt8]) {
        self.bytes = bytes
        classes = Self.classes(of: bytes)
    }

    /// Returns the first index at or after `start` (at most `end`) whose class shares nothing with `set`.
    @inline(__always)
    func endOfRun(of set: CharacterClass, from start: Int, to end: Int) -> Int {
        var at = start
        while at < end, classes[at] & set.rawValue != 0 { at += 1 }
        return at
    }

    @inline(__always)
    func has(_ set: CharacterClass, at index: Int) -> Bool {
        classes[index] & set.rawValue != 0
    }

    /// Returns the start of the character after the one that starts at `index`.
    @inline(__always)
    func after(_ index: Int) -> Int {
        index + Self.length(lead: bytes[index])
    }

    /// Returns the start of the character that ends before `index`.
    func before(_ index: Int) -> Int {
        var at = index - 1
        while bytes[at] & 0xC0 == 0x80 { at -= 1 }
        return at
    }

    @inline(__always)
    private static func length(lead: UInt8) -> Int {
        lead < 0x80 ? 1 : lead < 0xE0 ? 2 : lead < 0xF0 ? 3 : 4
    }

    private static func classes(of bytes: [UInt8]) -> [UInt8] {
        var classes = [UInt8](repeating: 0, count: bytes.count)
        var at = 0
        while at < bytes.count {
            let lead = bytes[at]
            if lead < 0x80 {
                classes[at] = table[Int(lead)]
                at += 1
                continue
            }
            let length = length(lead: lead)
            var value = UInt32(lead) & (0x7F >> UInt32(length))
            for next in at + 1..<at + length { value = value << 6 | UInt32(bytes[next] & 0x3F) }
            let found = Int(value) < table.count ? table[Int(value)] : farClass(value)
            for index in at..<at + length { classes[index] = found }
            at += length
        }
        return classes
    }

    /// The classes of the first two planes, which almost all text uses; it is built at first use, in about 20 ms.
    private static let table: [UInt8] = (0..<0x20000).map { value in
        Unicode.Scalar(UInt32(value)).map { CharacterClass($0).rawValue } ?? 0
    }

    private static func farClass(_ value: UInt32) -> UInt8 {
        Unicode.Scalar(value).map { CharacterClass($0).rawValue } ?? 0
    }
}
