/// Something a rank did, for traces.
package struct TraceSpan: Sendable {
    package var name: String
    /// Which of several, such as a layer's number.
    package var number: Int?
    /// Nanoseconds of `Meter.now`.
    package var begin: UInt64
    package var end: UInt64

    package init(_ name: StaticString, number: Int? = nil, begin: UInt64, end: UInt64) {
        self.name = "\(name)"
        self.number = number
        self.begin = begin
        self.end = end
    }
}
