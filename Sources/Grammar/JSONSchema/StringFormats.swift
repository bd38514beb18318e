/// Defines the supported values of `format`, as patterns of the whole string.
enum StringFormats {
    /// Formats that do not restrict a string's characters, or that concern numbers: annotations, in the
    /// standard's terms.
    static let annotations: Set<String> = [
        "int32", "int64", "uint32", "uint64", "float", "double", "decimal", "password", "binary", "byte", "regex",
    ]

    static func automaton(_ name: String) throws(GrammarError) -> CharacterAutomaton? {
        guard let pattern = patterns[name] else { return nil }
        return try CharacterAutomaton(Pattern(parsing: pattern), search: false)
    }

    static var names: [String] { patterns.keys.sorted() }

    private static let date = {
        let leapYear = #"(\d\d(0[48]|[2468][048]|[13579][26])|([02468][048]|[13579][26])00)"#
        let long = #"(0[13578]|1[02])-(0[1-9]|[12]\d|3[01])"#
        let short = #"(0[469]|11)-(0[1-9]|[12]\d|30)"#
        return #"(\d{4}-(\#(long)|\#(short)|02-(0[1-9]|1\d|2[0-8]))|\#(leapYear)-02-29)"#
    }()
    private static let time = #"([01]\d|2[0-3]):[0-5]\d:[0-5]\d(\.\d{1,9})?([Zz]|[+-]([01]\d|2[0-3]):[0-5]\d)"#
    private static let label = #"[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?"#
    private static let byte = #"(25[0-5]|2[0-4]\d|1\d\d|[1-9]?\d)"#
    private static let ipv4 = #"\#(byte)(\.\#(byte)){3}"#
    private static let ipv6 = {
        let group = "[0-9A-Fa-f]{1,4}"
        let last = "(\(group):\(group)|\(ipv4))"
        let options = [
            "(\(group):){6}\(last)", "::(\(group):){5}\(last)", "(\(group))?::(\(group):){4}\(last)",
            "((\(group):){0,1}\(group))?::(\(group):){3}\(last)", "((\(group):){0,2}\(group))?::(\(group):){2}\(last)",
            "((\(group):){0,3}\(group))?::\(group):\(last)", "((\(group):){0,4}\(group))?::\(last)",
            "((\(group):){0,5}\(group))?::\(group)", "((\(group):){0,6}\(group))?::",
        ]
        return "(\(options.joined(separator: "|")))"
    }()
    private static let duration = {
        let time = #"T(\d+H(\d+M(\d+S)?)?|\d+M(\d+S)?|\d+S)"#
        let date = #"(\d+Y(\d+M(\d+D)?)?|\d+M(\d+D)?|\d+D)"#
        return "P(\(date)(\(time))?|\(time)|\\d+W)"
    }()
    private static let uriCharacter = #"([A-Za-z0-9\-._~:/?@!$&'()*+,;=]|%[0-9A-Fa-f]{2})"#

    private static let patterns = [
        "date": date,
        "time": time,
        "date-time": "\(date)[Tt]\(time)",
        "duration": duration,
        "email": #"[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+(\.[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+)*@\#(label)(\.\#(label))*"#,
        "hostname": "\(label)(\\.\(label))*",
        "ipv4": ipv4,
        "ipv6": ipv6,
        "uuid": "[0-9A-Fa-f]{8}-[0-9A-Fa-f]{4}-[0-9A-Fa-f]{4}-[0-9A-Fa-f]{4}-[0-9A-Fa-f]{12}",
        "uri": "[A-Za-z][A-Za-z0-9+.-]*:\(uriCharacter)+(#\(uriCharacter)*)?",
        "uri-reference": "\(uriCharacter)*(#\(uriCharacter)*)?",
        "json-pointer": #"(/([^~/]|~0|~1)*)*"#,
        "relative-json-pointer": #"(0|[1-9]\d*)(#|(/([^~/]|~0|~1)*)*)"#,
    ]
}
