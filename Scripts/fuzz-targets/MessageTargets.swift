import Disaggregation
import Inference

extension Target {
    /// What processes of a job send each other. The first byte says what is read.
    static func wire(_ bytes: [UInt8]) -> CInt {
        guard let kind = bytes.first else { return 0 }
        let body = Array(bytes.dropFirst())
        switch kind % 3 {
        case 0: check(body) { try Order($0).bytes }
        case 1: check(body) { Wire.bytes(of: try Wire.value(ProcessCard.self, in: $0)) }
        default: check(body) { Wire.bytes(of: try Wire.value(StepReport.self, in: $0)) }
        }
        return 0
    }

    /// Messages and frames between servers, with checksums that are right. The first byte says which of the two.
    static func transfer(_ bytes: [UInt8]) -> CInt {
        guard let kind = bytes.first else { return 0 }
        var body = Array(bytes.dropFirst())
        if kind % 2 == 0 {
            body += checksum(body[...])
            check(body) { try SealedMessage($0).bytes }
        } else if body.count >= KVFrame.headerBytes {
            body.replaceSubrange(60..<64, with: checksum(body[..<60] + body[KVFrame.headerBytes...]))
            check(body) { try KVFrame($0).bytes }
        }
        return 0
    }

    /// What is accepted is written as bytes that are accepted, and written as the same bytes again. The first bytes may be
    /// others: texts that are no UTF-8 are repaired.
    private static func check(_ bytes: [UInt8], _ rewrite: ([UInt8]) throws -> [UInt8]) {
        guard let written = try? rewrite(bytes) else { return }
        guard let again = try? rewrite(written) else { fatalError("what was written is refused") }
        precondition(written == again, "what was written is another value")
    }

    private static func checksum(_ bytes: ArraySlice<UInt8>) -> [UInt8] {
        var sum = Checksum()
        sum.add(bytes)
        return (0..<4).map { UInt8(truncatingIfNeeded: sum.value >> (8 * $0)) }
    }
}
