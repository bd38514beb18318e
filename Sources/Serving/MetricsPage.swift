/// A page of metrics in the text format of Prometheus, version 0.0.4.
package struct MetricsPage {
    package private(set) var text = ""
    /// The value of the label `model_name` of all series; `nil` for series without it.
    let model: String?

    package init(model: String?) { self.model = model }

    package mutating func family(_ name: String, _ type: String, _ explanation: String) {
        text += "# HELP braid_\(name) \(explanation)\n# TYPE braid_\(name) \(type)\n"
    }

    package mutating func sample(_ name: String, _ value: Double, labels: [(String, String)] = []) {
        let list = ((model.map { [("model_name", $0)] } ?? []) + labels).map { "\($0.0)=\"\(Self.escaped($0.1))\"" }
        text += "braid_\(name)\(list.isEmpty ? "" : "{\(list.joined(separator: ","))}") \(Self.number(value))\n"
    }

    package mutating func single(_ name: String, _ type: String, _ explanation: String, _ value: Double) {
        family(name, type, explanation)
        sample(name, value)
    }

    package mutating func histogram(_ name: String, _ explanation: String, _ histogram: ServerMetrics.Histogram) {
        family(name, "histogram", explanation)
        var total: UInt64 = 0
        for (bound, count) in zip(histogram.bounds.map(Self.number) + ["+Inf"], histogram.counts) {
            total += count
            sample("\(name)_bucket", Double(total), labels: [("le", bound)])
        }
        sample("\(name)_sum", histogram.sum)
        sample("\(name)_count", Double(total))
    }

    private static func number(_ value: Double) -> String {
        Int(exactly: value).map(String.init) ?? String(value)
    }

    private static func escaped(_ label: String) -> String {
        label.reduce(into: "") { text, character in
            switch character {
            case "\\": text += "\\\\"
            case "\"": text += "\\\""
            case "\n": text += "\\n"
            default: text.append(character)
            }
        }
    }
}
