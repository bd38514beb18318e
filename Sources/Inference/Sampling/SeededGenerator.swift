/// This generator gives the same random numbers for the same seed and stream, whatever else is drawn.
package struct SeededGenerator: RandomNumberGenerator, Sendable {
    private let seed: UInt64
    private let stream: UInt64
    private var drawn: UInt64 = 0

    package init(seed: UInt64, stream: UInt64 = 0) {
        self.seed = seed
        self.stream = stream
    }

    package mutating func next() -> UInt64 {
        let words = CounterGenerator.block(
            counter: [
                UInt32(truncatingIfNeeded: drawn), UInt32(truncatingIfNeeded: drawn >> 32),
                UInt32(truncatingIfNeeded: stream), UInt32(truncatingIfNeeded: stream >> 32),
            ],
            key: [UInt32(truncatingIfNeeded: seed), UInt32(truncatingIfNeeded: seed >> 32)])
        drawn += 1
        return UInt64(words[0]) << 32 | UInt64(words[1])
    }

    /// Returns token ids drawn uniformly from the vocabulary.
    package mutating func tokens(_ count: Int, vocabularySize: Int) -> [Int32] {
        (0..<count).map { _ in Int32.random(in: 0..<Int32(vocabularySize), using: &self) }
    }
}
