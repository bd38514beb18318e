import JSON

/// What a family of devices reaches of what its data sheet and its class of kernels say, and what its operations cost
/// beside that.
package struct Efficiencies: Sendable, Equatable {
    /// Fractions of the rate of operations that products, index scores and attention reach.
    package var matrix = 0.8
    package var index = 0.8
    /// A published kernel: FlashMLA's sparse prefill reaches 640 of 989 · 10^12 operations a second on H800.
    package var attention = 0.65
    /// Fractions of the bandwidth of memory and of links.
    package var memory = 0.8
    package var link = 0.8
    /// Seconds a host needs to start the operations of one layer of a prefill step; devices wait where they are faster.
    package var launch = 0.0
    /// Seconds of one layer of a decode step beside arithmetic and memory: many small operations.
    package var layer = 0.0
    /// Seconds of a collective without any bytes.
    package var collective = 12e-6

    package init() {}

    /// What is assumed of a device where nothing was fitted or measured. The kernels of processors say themselves what they
    /// reach of its rates.
    init(for kind: Hardware.Kind) {
        guard kind == .processor else { return }
        (matrix, index, attention) = (1, 1, 1)
    }

    /// What measured hardware reaches: all of it, for its numbers are those of the kernels themselves.
    package static let measured: Efficiencies = {
        var all = Efficiencies(for: .processor)
        (all.memory, all.link, all.collective) = (1, 1, 5e-6)
        return all
    }()

    /// Reads what a measured device reaches.
    init(measured json: JSONValue) throws(HardwareError) {
        self = .measured
        for number in Fitted.allCases {
            guard let value = json[number.rawValue] else { continue }
            guard let value = value.double, (0...1e6).contains(value), value > 0 || number.unit < 1 else {
                throw HardwareError("hardware: 'efficiency' has '\(number.rawValue)', which is no positive number")
            }
            self[keyPath: number.path] = value * number.unit
        }
    }

    /// The same as a file has it.
    var json: JSONValue {
        .object(Fitted.allCases.map { JSONMember($0.rawValue, .real(self[keyPath: $0.path] / $0.unit)) })
    }

    /// A number that is fitted or measured, and its name in files.
    package enum Fitted: String, CaseIterable, Sendable {
        case matrix, index, attention, memory
        case launch = "launch_us"
        case layer = "layer_us"
        case collective = "collective_us"

        var path: WritableKeyPath<Efficiencies, Double> {
            switch self {
            case .matrix: \.matrix
            case .index: \.index
            case .attention: \.attention
            case .memory: \.memory
            case .launch: \.launch
            case .layer: \.layer
            case .collective: \.collective
            }
        }

        /// Of the number in the file.
        var unit: Double { rawValue.hasSuffix("_us") ? 1e-6 : 1 }
    }
}
