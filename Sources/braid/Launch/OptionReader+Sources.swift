import JSON

extension OptionReader {
    /// Returns the settings of the variables `BRAID_…`, and of those of SGLang and vLLM that mean an option; a variable
    /// `BRAID_…` that names no option is a warning. Further values of an option that may be repeated have a number, such as
    /// `BRAID_API_KEY_2`.
    mutating func readEnvironment(_ environment: [String: String]) -> [LaunchLine.Setting] {
        let options = Dictionary(uniqueKeysWithValues: command.options.map { ($0.variable, $0) })
        // `ParallelOptions` says what is wrong with this variable, also where no file is read.
        if let (variable, text) = ParallelOptions.partition(in: environment),
            ParallelOptions.LayerCounts(argument: text) != nil, command["--pp-layer-partition"] != nil
        {
            read(["--pp-layer-partition=\(text)"], from: .environment(variable))
        }
        // A server that vLLM's users protect in this way must not be open here.
        if let key = environment["VLLM_API_KEY"], !key.isEmpty, environment["BRAID_API_KEY"] == nil,
            command.path == ["serve"]
        {
            read(["--api-key=\(key)"], from: .environment("VLLM_API_KEY"))
        }
        for (name, value) in environment.sorted(by: { $0.key < $1.key })
        where name.hasPrefix("BRAID_") && name != DisaggregationOptions.secretVariable {
            let given = Self.option(ofVariable: name)
            if let option = options[name] ?? command[given]
                ?? options[Self.withoutNumber(name)].flatMap({ $0.isRepeatable ? $0 : nil }),
                !["--help", "--version", "--print-config"].contains(option.name)
            {
                read(["\(option.name)=\(value)"], from: .environment(name))
            } else if command[given] == nil, isKnown(given) {
                read(["\(given)=\(value)"], from: .environment(name))
            } else {
                let advice = nearest(to: name, in: Array(options.keys)).map { "; the nearest is \($0)" } ?? ""
                warnings.append("environment \(name): there is no such option\(advice)")
            }
        }
        return takeSettings()
    }

    /// Returns the name of the option that a variable `BRAID_…` gives.
    private static func option(ofVariable name: String) -> String {
        "--" + CommandOptions.dashed(name.dropFirst("BRAID_".count).lowercased())
    }

    /// Returns the name of a variable without a number at its end, as in `_2`.
    private static func withoutNumber(_ name: String) -> String {
        guard let mark = name.lastIndex(of: "_"), let number = Int(name[name.index(after: mark)...]), number > 1 else {
            return name
        }
        return String(name[..<mark])
    }

    /// Returns the settings of a configuration file, in which the names of options are written in full.
    mutating func readFile(_ path: String) throws -> [LaunchLine.Setting] {
        for entry in try ConfigurationFile(path: path).entries {
            let origin = LaunchLine.Origin.file(path, line: entry.line)
            let name = "--" + entry.key.drop { $0 == "-" }
            if CommandOptions.dashed(name) == "--config" {
                problems.append("\(origin): a configuration file cannot name another one")
            } else if !isKnown(name) {
                readPart([name], from: origin)
            } else {
                readValue(entry.value, of: name, from: origin)
            }
        }
        readMembers()
        return takeSettings()
    }

    /// Reads an option's value in a configuration file. Null leaves the option out, as in the launchers of other engines.
    private mutating func readValue(_ value: JSONValue, of name: String, from origin: LaunchLine.Origin) {
        let isList = command[name]?.isFlag == false && command[name]?.isRepeatable == true
        switch value {
        case .null: break
        case .object where takesJSON(name), .array where takesJSON(name):
            readPart(["\(name)=\(value.pythonText)"], from: origin)
        case .object:
            let given = name.dropFirst(2)
            problems.append(
                "\(origin): \(given) takes a value, no map; only options that take JSON have maps, such as compilation-config"
            )
        case .array(let items):
            let texts = items.compactMap(ConfigurationFile.text)
            if texts.count < items.count {
                problems.append("\(origin): \(name.dropFirst(2)) has an item that is no string, number, true or false")
            } else if table[name]?.arity == .oneOrMore {
                readPart([name] + texts, from: origin)
            } else if texts.count == 1 || isList {
                for text in texts { readPart(["\(name)=\(text)"], from: origin) }
            } else {
                problems.append("\(origin): \(name.dropFirst(2)) takes one value, not a list of \(texts.count)")
            }
        default: readPart(["\(name)=\(ConfigurationFile.text(of: value) ?? "")"], from: origin)
        }
    }
}
