package import NIOCore

/// Limits how often lines are logged that strangers can cause: so many in a minute. The first line of the next minute says
/// how many were left out.
package struct LineLimit {
    package static let lines = 10
    package static let interval = TimeAmount.minutes(1)

    private var end = NIODeadline.uptimeNanoseconds(0)
    private var count = 0

    package init() {}

    /// Returns the line to log; `nil` if it is to be left out.
    package mutating func admit(_ line: String, at now: NIODeadline) -> String? {
        guard now < end else {
            let leftOut = count - Self.lines
            (end, count) = (now + Self.interval, 1)
            return leftOut > 0 ? "\(line) (\(leftOut) lines of this kind were left out before)" : line
        }
        count += 1
        return count <= Self.lines ? line : nil
    }
}
