/// Provides the sets of `\p{…}`: general categories by their short and long names, as of Unicode 16 whatever version
/// the Swift runtime knows, so that a pattern means the same on every machine.
enum UnicodeCategories {
    /// Returns the set of a general category.
    ///
    /// - Returns: `nil` for names that are no general category.
    static func set(named name: String) -> ScalarSet? {
        var name = name
        for prefix in ["General_Category=", "gc="] where name.hasPrefix(prefix) { name.removeFirst(prefix.count) }
        if name == "Any" { return .all }
        if name == "ASCII" { return ScalarSet([0...0x7F]) }
        guard let abbreviations = members[longNames[name] ?? name] else { return nil }
        return ScalarSet(abbreviations.flatMap { byCategory[$0]?.ranges ?? [] })
    }

    /// Maps each name to its two-letter categories; a single letter has several.
    private static let members: [String: [String]] = {
        var members: [String: [String]] = ["LC": ["Lu", "Ll", "Lt"]]
        for name in Set(abbreviations.values).union(["Cn", "Cs"]) {
            members[name] = [name]
            members[String(name.prefix(1)), default: []].append(name)
        }
        return members
    }()

    private static let abbreviations: [Unicode.GeneralCategory: String] = [
        .uppercaseLetter: "Lu", .lowercaseLetter: "Ll", .titlecaseLetter: "Lt", .modifierLetter: "Lm",
        .otherLetter: "Lo", .nonspacingMark: "Mn", .spacingMark: "Mc", .enclosingMark: "Me", .decimalNumber: "Nd",
        .letterNumber: "Nl", .otherNumber: "No", .connectorPunctuation: "Pc", .dashPunctuation: "Pd",
        .openPunctuation: "Ps", .closePunctuation: "Pe", .initialPunctuation: "Pi", .finalPunctuation: "Pf",
        .otherPunctuation: "Po", .mathSymbol: "Sm", .currencySymbol: "Sc", .modifierSymbol: "Sk", .otherSymbol: "So",
        .spaceSeparator: "Zs", .lineSeparator: "Zl", .paragraphSeparator: "Zp", .control: "Cc", .format: "Cf",
        .privateUse: "Co",
    ]

    private static let longNames = [
        "Letter": "L", "Cased_Letter": "LC", "Uppercase_Letter": "Lu", "Lowercase_Letter": "Ll",
        "Titlecase_Letter": "Lt", "Modifier_Letter": "Lm", "Other_Letter": "Lo", "Mark": "M", "Nonspacing_Mark": "Mn",
        "Spacing_Mark": "Mc", "Enclosing_Mark": "Me", "Number": "N", "Decimal_Number": "Nd", "digit": "Nd",
        "Letter_Number": "Nl", "Other_Number": "No", "Punctuation": "P", "punct": "P", "Connector_Punctuation": "Pc",
        "Dash_Punctuation": "Pd", "Open_Punctuation": "Ps", "Close_Punctuation": "Pe", "Initial_Punctuation": "Pi",
        "Final_Punctuation": "Pf", "Other_Punctuation": "Po", "Symbol": "S", "Math_Symbol": "Sm",
        "Currency_Symbol": "Sc", "Modifier_Symbol": "Sk", "Other_Symbol": "So", "Separator": "Z",
        "Space_Separator": "Zs", "Line_Separator": "Zl", "Paragraph_Separator": "Zp", "Other": "C", "Control": "Cc",
        "cntrl": "Cc", "Format": "Cf", "Private_Use": "Co", "Unassigned": "Cn", "Surrogate": "Cs",
    ]

    /// The sets of scalars by general category, built at first use in some tens of milliseconds.
    private static let byCategory: [String: ScalarSet] = {
        var ranges: [String: [ClosedRange<UInt32>]] = [:]
        var (current, start): (String?, UInt32) = (nil, 0)
        for value in UInt32(0)...0x110000 {
            let category = value > 0x10FFFF ? nil : Unicode.Scalar(value).map(abbreviation)
            if category == current { continue }
            if let current { ranges[current, default: []].append(start...value - 1) }
            (current, start) = (category, value)
        }
        return ranges.mapValues { ScalarSet($0) }
    }()

    private static func abbreviation(_ scalar: Unicode.Scalar) -> String {
        let properties = scalar.properties
        if let age = properties.age, age.major > 16 { return "Cn" }
        return abbreviations[properties.generalCategory] ?? "Cn"
    }
}
