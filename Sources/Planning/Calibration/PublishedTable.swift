import JSON
package import KVCache

/// Measurements that somebody published, of one layout.
package struct PublishedTable: Sendable {
    package enum Quantity: String, Sendable, CaseIterable {
        /// Seconds to the first token.
        case firstToken = "ttft"
        /// Seconds per output token.
        case perToken = "tpot"
        /// Output tokens a second.
        case throughput
    }

    package enum Use: String, Sendable {
        /// Efficiencies are fitted on the rows.
        case fit
        /// The rows are predicted, and nothing is fitted on them.
        case heldOut = "held out"
        /// Braid has no description of the model, the layout or the device.
        case notExpressible = "not expressible"
    }

    package struct Row: Sendable {
        package let input: Int
        package let output: Int
        /// Seconds, or tokens a second.
        package let value: Double
    }

    package let source: String
    package let what: String
    package let use: Use
    /// Why it cannot be predicted, where it cannot.
    package let reason: String?
    package let run: Run?
    /// True if no row of the same run was used for fitting.
    package let isIndependent: Bool
    package let rows: [Row]

    /// What was run.
    package struct Run: Sendable {
        package let quantity: Quantity
        /// A released model's name.
        package let model: String
        package let weights: Hardware.ElementType
        package let hardware: String
        package let devices: Int
        /// As `ParallelConfiguration.init(notation:for:)` reads it.
        package let layout: String
        package let cache: CacheType
        package let chunk: Int
    }

    /// All that the program carries, from `Data/published.json`.
    package static func builtIn() throws(HardwareError) -> [PublishedTable] {
        let entries: [JSONValue]
        do throws(JSONError) {
            entries = try JSONValue(parsing: PackageResources.published_json, limits: .strict)["tables"]?.array ?? []
        } catch {
            throw HardwareError("published.json: \(error)")
        }
        var tables: [PublishedTable] = []
        for entry in entries { tables.append(try PublishedTable(entry)) }
        return tables
    }

    private init(_ json: JSONValue) throws(HardwareError) {
        guard let source = json["source"]?.string, let what = json["what"]?.string,
            let use = (json["use"]?.string).flatMap(Use.init)
        else { throw HardwareError("published.json: a table has no source, no title or no use") }
        self.source = source
        self.what = what
        self.use = use
        reason = json["why"]?.string
        run = use == .notExpressible ? nil : Run(json)
        isIndependent = json["independent"]?.bool ?? true
        rows = (json["rows"]?.array ?? []).compactMap(Row.init)
        if use != .notExpressible && (run == nil || rows.isEmpty) || use == .notExpressible && reason == nil {
            throw HardwareError("published.json: '\(what)' lacks what it was run with, its rows, or a reason")
        }
    }
}

extension PublishedTable.Run {
    fileprivate init?(_ json: JSONValue) {
        guard let quantity = (json["quantity"]?.string).flatMap(PublishedTable.Quantity.init),
            let model = json["model"]?.string,
            let weights = (json["weights"]?.string).flatMap(Hardware.ElementType.init),
            let hardware = json["hardware"]?.string, let devices = json["devices"]?.integer,
            let layout = json["layout"]?.string, let cache = (json["cache"]?.string).flatMap(CacheType.init),
            let chunk = json["chunk"]?.integer
        else { return nil }
        self.quantity = quantity
        self.model = model
        self.weights = weights
        self.hardware = hardware
        self.devices = devices
        self.layout = layout
        self.cache = cache
        self.chunk = chunk
    }
}

extension PublishedTable.Row {
    fileprivate init?(_ json: JSONValue) {
        guard let input = json["input"]?.integer, let output = json["output"]?.integer, input > 0, output > 0,
            let value = (json["seconds"] ?? json["tokens_per_second"])?.double, value > 0
        else { return nil }
        self.input = input
        self.output = output
        self.value = value
    }
}
