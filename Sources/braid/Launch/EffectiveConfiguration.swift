package import ArgumentParser

/// The values of all options of a parsed command, each with the place that it comes from, in the form of a configuration
/// file.
package struct EffectiveConfiguration {
    package let lines: [String]

    /// Options whose values are not printed.
    private static let secrets: Set<String> = ["--api-key", "--worker-api-key"]
    /// Options that are of no use in a file.
    private static let excluded: Set<String> = ["--help", "--version", "--config", "--print-config"]

    package init(of command: any ParsableCommand, _ options: CommandOptions, _ settings: [LaunchLine.Setting]) {
        let values = Self.values(of: command)
        let declared = options.options.filter { !["--help", "--version"].contains($0.name) }
        precondition(declared.count == values.count, "ArgumentParser describes other options than the command has")
        lines = zip(declared, values).filter { !Self.excluded.contains($0.0.name) }.map { option, values in
            let origin = settings.last { $0.option == option }.map { $0.origin.description } ?? "default"
            let key = option.name.drop { $0 == "-" }
            guard let values, !values.isEmpty else { return "# \(key): unset  # \(origin)" }
            let texts = values.map { Self.secrets.contains(option.name) ? "(secret)" : Self.quoted($0) }
            let value = option.isRepeatable ? "[\(texts.joined(separator: ", "))]" : texts[0]
            return "\(key): \(value)  # \(origin)"
        }
    }

    /// Returns a value as YAML reads it.
    private static func quoted(_ text: String) -> String {
        let isPlain =
            text.allSatisfy { $0.isLetter || $0.isNumber || "-_./+".contains($0) } && !["", "null"].contains(text)
        return isPlain ? text : "'" + text.replacing("'", with: "''") + "'"
    }

    /// Returns the values of all options in the order of their declaration; `nil` for one that was not given and has no
    /// default.
    private static func values(of command: Any) -> [[String]?] {
        Mirror(reflecting: command).children.flatMap { child -> [[String]?] in
            switch child.value {
            case let group as any DeclaredGroup: values(of: group.contents)
            case let option as any DeclaredValue: [texts(of: option.contents)]
            default: []
            }
        }
    }

    /// Returns a value's texts; `nil` for an absent optional.
    private static func texts(of value: Any) -> [String]? {
        if let argument = value as? any ExpressibleByArgument { return [argument.defaultValueDescription] }
        let mirror = Mirror(reflecting: value)
        switch mirror.displayStyle {
        case .optional: return mirror.children.first.flatMap { texts(of: $0.value) }
        case .collection: return mirror.children.compactMap { texts(of: $0.value)?.first }
        default: return ["\(value)"]
        }
    }
}

/// The declaration of an option or a flag, whose value can be read.
private protocol DeclaredValue {
    associatedtype Contents
    var contents: Contents { get }
}

/// The declaration of a group of options.
private protocol DeclaredGroup {
    associatedtype Contents
    var contents: Contents { get }
}

extension Option: DeclaredValue { fileprivate var contents: Value { wrappedValue } }
extension Flag: DeclaredValue { fileprivate var contents: Value { wrappedValue } }
extension OptionGroup: DeclaredGroup { fileprivate var contents: Value { wrappedValue } }
