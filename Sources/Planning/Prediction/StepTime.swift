/// The seconds of a step, or of several, by what they are spent on.
package struct StepTime: Sendable, Equatable {
    /// The resource that a part of a step's time is spent on. The raw value is its name in tables.
    package enum Part: String, Sendable, CaseIterable {
        /// Multiplications of products with weights.
        case products
        /// Reading weights, where that takes longer than multiplying them.
        case weights
        case index
        case attention
        /// Rows between ranks.
        case collectives
        /// A host that starts operations more slowly than devices finish them.
        case launches
    }

    private var seconds: [Double]

    package init() { seconds = Array(repeating: 0, count: Part.allCases.count) }

    package subscript(part: Part) -> Double {
        get { seconds[part.place] }
        set { seconds[part.place] = newValue }
    }

    package var total: Double { seconds.reduce(0, +) }

    /// The part that takes most.
    package var limit: Part { Part.allCases.max { self[$0] < self[$1] }! }

    static func += (left: inout StepTime, right: StepTime) {
        for part in left.seconds.indices { left.seconds[part] += right.seconds[part] }
    }

    static func * (times: Double, time: StepTime) -> StepTime {
        var product = time
        for part in product.seconds.indices { product.seconds[part] *= times }
        return product
    }

    /// Adds a product: the longer of multiplying and reading.
    mutating func add(operations: Double, at rate: Double, bytes: Double, at bandwidth: Double) {
        let (multiplying, reading) = (operations / rate, bytes / bandwidth)
        self[multiplying >= reading ? .products : .weights] += max(multiplying, reading)
    }
}

extension StepTime.Part {
    fileprivate var place: Int {
        switch self {
        case .products: 0
        case .weights: 1
        case .index: 2
        case .attention: 3
        case .collectives: 4
        case .launches: 5
        }
    }
}
