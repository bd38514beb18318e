package import NIOCore

/// Tells comments from events at the beginning of a stream of server-sent events.
package struct EventComments: Sendable {
    /// True if the last comment has not ended, so that what follows it would belong to it.
    package private(set) var isInComment = false

    package init() {}

    /// Returns true if the next bytes of the stream have more than comments, which are lines that begin with a colon, and
    /// empty lines.
    package mutating func hasEvent(in bytes: ByteBuffer) -> Bool {
        for byte in bytes.readableBytesView {
            switch byte {
            case UInt8(ascii: "\n"), UInt8(ascii: "\r"): isInComment = false
            case UInt8(ascii: ":") where !isInComment: isInComment = true
            default: if !isInComment { return true }
            }
        }
        return false
    }
}
