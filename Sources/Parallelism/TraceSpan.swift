/// A piece of a rank's work, for traces.
package struct TraceSpan: Sendable {
    package var name: String
    /// Tells apart pieces with the same name, for instance by a layer's number.
    package var number: Int?
    /// The time when the piece began, in nanoseconds of `Meter.now`, as is `end`.
    package var begin: UInt64
    package var end: UInt64

    package init(_ name: StaticString, number: Int? = nil, begin: UInt64, end: UInt64) {
        self.name = "\(name)"
        self.number = number
        self.begin = begin
        self.end = end
    }
}
