import Foundation
import Tensors

/// A message from one process to another: a head of one unit with its kind and channel, and a body of bytes.
///
/// A message owns its memory, so that the sender continues at once. Every field of a received message is checked before
/// it is used.
@safe package final class Message: @unchecked Sendable {
    /// Says which part of the receiver a message is for.
    package enum Kind: UInt16, Sendable {
        /// Carries rows of a group of ranks.
        case rows
        /// Reports that a rank or a process has failed.
        case alarm
        /// Shows that the sender is alive.
        case heartbeat
        /// Describes a process at the start of the job.
        case card
        /// Tells a process what the first process wants done.
        case order
        /// Reports the result of a step.
        case report
        /// Brings entries of a cache that the first process has asked for, or says that it has taken some.
        case entries
        /// Announces that the sender leaves the job: only heartbeats follow.
        case farewell
    }

    /// The version of the format of messages and of their contents, incremented when either changes.
    package static let version: UInt16 = 3
    /// Messages consist of whole units of this many bytes.
    static let unit = 64
    private static let magic: UInt32 = 0x4252_4149
    /// Memory of at most this many bytes is kept, however little of it is used.
    private static let smallBytes = 1 << 16
    /// A body with more bytes is invalid; no step's rows need as many.
    private static let maxBytes = 1 << 37

    package let kind: Kind
    /// The number of one of the successive sets of ranks of a job.
    package let epoch: UInt64
    /// The number of the channel within the epoch.
    let channel: UInt64
    /// The number of this message among those of its channel and sender, from 0.
    private(set) var number: UInt64
    package private(set) var bodyBytes: Int
    private let memory: UnsafeMutableRawPointer
    /// The size of `memory` in bytes.
    private let capacity: Int

    /// The size of head and body in bytes, rounded up to whole units.
    var bytes: Int { Self.bytes(body: bodyBytes) }

    /// Creates a message whose body is still to be written. Traps if there is no memory for it.
    package convenience init(
        _ kind: Kind, epoch: UInt64 = 0, channel: UInt64 = 0, number: Int = 0, bodyBytes: Int
    ) {
        do throws(MemoryError) {
            try self.init(reserving: bodyBytes, kind, epoch: epoch, channel: channel, number: number)
        } catch {
            fatalError(error.description)
        }
    }

    /// Creates a message with a body of `bodyBytes` bytes that is still to be written.
    ///
    /// - Throws: `MemoryError` if there is no memory for it.
    init(
        reserving bodyBytes: Int, _ kind: Kind, epoch: UInt64, channel: UInt64, number: Int
    ) throws(MemoryError) {
        capacity = Self.bytes(body: bodyBytes)
        guard let memory = unsafe Self.allocate(capacity) else {
            throw MemoryError(bytes: capacity, reason: "no memory for a message")
        }
        self.kind = kind
        self.epoch = epoch
        self.channel = channel
        self.number = UInt64(number)
        self.bodyBytes = bodyBytes
        unsafe self.memory = memory
        unsafe memory.storeBytes(of: Self.magic, as: UInt32.self)
        unsafe memory.storeBytes(of: Self.version, toByteOffset: 4, as: UInt16.self)
        unsafe memory.storeBytes(of: kind.rawValue, toByteOffset: 6, as: UInt16.self)
        unsafe memory.storeBytes(of: epoch, toByteOffset: 8, as: UInt64.self)
        unsafe memory.storeBytes(of: channel, toByteOffset: 16, as: UInt64.self)
        writeNumberAndSize()
    }

    private func writeNumberAndSize() {
        unsafe memory.storeBytes(of: number, toByteOffset: 24, as: UInt64.self)
        unsafe memory.storeBytes(of: UInt64(bodyBytes), toByteOffset: 32, as: UInt64.self)
    }

    /// Makes this the next message of its channel, with a body that is still to be written. No other reference may
    /// exist.
    ///
    /// - Returns: false if its memory is too small, or much too large.
    func reuse(number: Int, bodyBytes: Int) -> Bool {
        let bytes = Self.bytes(body: bodyBytes)
        guard bytes <= capacity, capacity <= max(4 * bytes, Self.smallBytes) else { return false }
        self.number = UInt64(number)
        self.bodyBytes = bodyBytes
        writeNumberAndSize()
        return true
    }

    /// Returns a message with the same head and another body. Tests use it to check that damage is detected.
    package func copy(body: [UInt8]) -> Message {
        let copy = Message(kind, epoch: epoch, channel: channel, number: Int(number), bodyBytes: body.count)
        unsafe UnsafeMutableRawBufferPointer(start: copy.body, count: body.count).copyBytes(from: body)
        return copy
    }

    package convenience init(_ kind: Kind, epoch: UInt64 = 0, body: [UInt8]) {
        self.init(kind, epoch: epoch, bodyBytes: body.count)
        unsafe UnsafeMutableRawBufferPointer(start: self.body, count: body.count).copyBytes(from: body)
    }

    /// Creates a received message; `nil` if the bytes are no valid message. It takes ownership of memory from
    /// `allocate`.
    init?(arrived memory: UnsafeMutableRawPointer, bytes: Int) {
        func word(_ place: Int) -> UInt64 { unsafe memory.load(fromByteOffset: 8 + 8 * place, as: UInt64.self) }
        guard bytes >= Self.unit, unsafe memory.load(as: UInt32.self) == Self.magic,
            unsafe memory.load(fromByteOffset: 4, as: UInt16.self) == Self.version,
            let kind = unsafe Kind(rawValue: memory.load(fromByteOffset: 6, as: UInt16.self)),
            word(3) <= Self.maxBytes, Self.bytes(body: Int(word(3))) == bytes, word(2) < UInt64(Int64.max)
        else {
            unsafe free(memory)
            return nil
        }
        self.kind = kind
        (epoch, channel, number) = (word(0), word(1), word(2))
        bodyBytes = Int(word(3))
        capacity = bytes
        unsafe self.memory = memory
    }

    deinit { unsafe free(memory) }

    /// Allocates memory for a message to receive, which `init(arrived:)` takes; `nil` if there is not enough.
    @unsafe static func allocate(_ bytes: Int) -> UnsafeMutableRawPointer? {
        var memory: UnsafeMutableRawPointer?
        return unsafe posix_memalign(&memory, unit, bytes) == 0 ? memory : nil
    }

    private static func bytes(body: Int) -> Int { (unit + body + unit - 1) / unit * unit }

    /// Points to head and body, for transports.
    @unsafe var start: UnsafeRawPointer { unsafe UnsafeRawPointer(memory) }

    /// Points to the `bodyBytes` bytes of the body, valid as long as the message.
    @unsafe var body: UnsafeMutableRawPointer { unsafe memory + Self.unit }

    /// A copy of the body.
    package var bodyCopy: [UInt8] { unsafe Array(UnsafeRawBufferPointer(start: body, count: bodyBytes)) }
}

/// Creates the messages that one sender sends on one channel. It reuses their memory once no other reference exists, so
/// that steps of the same size allocate nothing.
struct MessageRing {
    private let kind: Message.Kind
    private let epoch: UInt64
    private let channel: UInt64
    private var messages: [Message?] = Array(repeating: nil, count: Mailbox.depth)

    init(_ kind: Message.Kind, epoch: UInt64, channel: UInt64) {
        self.kind = kind
        self.epoch = epoch
        self.channel = channel
    }

    /// Returns the channel's message `number`, with a body that is still to be written.
    ///
    /// - Parameter rank: the sender, for the error.
    /// - Throws: `GroupFailure` if there is no memory for it.
    mutating func message(_ number: Int, bodyBytes: Int, from rank: Int) throws(GroupFailure) -> Message {
        let slot = number % messages.count
        if isKnownUniquelyReferenced(&messages[slot]), messages[slot]!.reuse(number: number, bodyBytes: bodyBytes) {
            return messages[slot]!
        }
        messages[slot] = nil
        do throws(MemoryError) {
            let message = try Message(reserving: bodyBytes, kind, epoch: epoch, channel: channel, number: number)
            messages[slot] = message
            return message
        } catch {
            throw GroupFailure(rank: rank, reason: "no memory for rows to send: \(error); lower --chunked-prefill-size")
        }
    }
}
