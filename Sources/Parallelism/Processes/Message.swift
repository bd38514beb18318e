import Foundation
import Tensors

/// What one process tells another: a head of one unit that says what it is about, and a body of bytes.
///
/// The memory is the message's own, so that whoever sends it goes on at once. Every field that comes from outside is
/// checked before anybody sees it.
@safe package final class Message: @unchecked Sendable {
    /// Whom a message is for.
    package enum Kind: UInt16, Sendable {
        /// Rows of a group of ranks.
        case rows
        /// A rank or a process has failed.
        case alarm
        /// The sender lives.
        case heartbeat
        /// What a process says of itself at the start.
        case card
        /// What the first process wants done.
        case order
        /// What came of it.
        case report
        /// The sender leaves the job: its last message but for heartbeats.
        case farewell
    }

    /// Changes with the form of messages and of what is in them.
    package static let version: UInt16 = 2
    /// Messages have whole units.
    static let unit = 64
    private static let magic: UInt32 = 0x4252_4149
    /// So small a message's memory is kept however little of it is used.
    private static let smallBytes = 1 << 16
    /// More than any step's rows take; what claims more is no message.
    private static let maxBytes = 1 << 37

    package let kind: Kind
    /// Which of the sets of ranks that follow each other in a job.
    package let epoch: UInt64
    /// Within the epoch.
    let channel: UInt64
    /// Of a channel's messages from one process, from 0.
    private(set) var number: UInt64
    package private(set) var bodyBytes: Int
    private let memory: UnsafeMutableRawPointer
    /// Bytes that `memory` has room for.
    private let capacity: Int

    /// Bytes of head and body, whole units.
    var bytes: Int { Self.bytes(body: bodyBytes) }

    /// A message with a body that is still to be written. Traps when there is no memory for it.
    package convenience init(
        _ kind: Kind, epoch: UInt64 = 0, channel: UInt64 = 0, number: Int = 0, bodyBytes: Int
    ) {
        do throws(MemoryError) {
            try self.init(reserving: bodyBytes, kind, epoch: epoch, channel: channel, number: number)
        } catch {
            fatalError(error.description)
        }
    }

    /// A message with a body of so many bytes that is still to be written.
    ///
    /// - Throws: `MemoryError` when there is no memory for it.
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

    /// Makes this the next message of its channel, with a body that is still to be written. Nobody else may hold it.
    ///
    /// - Returns: false where its memory is too small, or much too large.
    func reuse(number: Int, bodyBytes: Int) -> Bool {
        let bytes = Self.bytes(body: bodyBytes)
        guard bytes <= capacity, capacity <= max(4 * bytes, Self.smallBytes) else { return false }
        self.number = UInt64(number)
        self.bodyBytes = bodyBytes
        writeNumberAndSize()
        return true
    }

    /// A message with the same head and other contents: for tests that damage on the way is found.
    package func copy(body: [UInt8]) -> Message {
        let copy = Message(kind, epoch: epoch, channel: channel, number: Int(number), bodyBytes: body.count)
        unsafe UnsafeMutableRawBufferPointer(start: copy.body, count: body.count).copyBytes(from: body)
        return copy
    }

    package convenience init(_ kind: Kind, epoch: UInt64 = 0, body: [UInt8]) {
        self.init(kind, epoch: epoch, bodyBytes: body.count)
        unsafe UnsafeMutableRawBufferPointer(start: self.body, count: body.count).copyBytes(from: body)
    }

    /// What came: `nil` where that is no message. Takes the memory, which `allocate` gave.
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

    /// Memory for so many bytes to arrive in, which `init(arrived:)` takes; `nil` where there is not so much.
    @unsafe static func allocate(_ bytes: Int) -> UnsafeMutableRawPointer? {
        var memory: UnsafeMutableRawPointer?
        return unsafe posix_memalign(&memory, unit, bytes) == 0 ? memory : nil
    }

    private static func bytes(body: Int) -> Int { (unit + body + unit - 1) / unit * unit }

    /// Head and body, for whoever carries them.
    @unsafe var start: UnsafeRawPointer { unsafe UnsafeRawPointer(memory) }

    /// `bodyBytes` bytes, valid as long as the message.
    @unsafe var body: UnsafeMutableRawPointer { unsafe memory + Self.unit }

    /// A copy of the body.
    package var bodyCopy: [UInt8] { unsafe Array(UnsafeRawBufferPointer(start: body, count: bodyBytes)) }
}

/// The messages that one sender makes for one channel. Their memory is used again once nobody else holds them, so that
/// steps of the same size allocate nothing.
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

    /// The channel's message `number`, with a body that is still to be written.
    ///
    /// - Parameter rank: the sender, for the error.
    /// - Throws: `GroupFailure` when there is no memory for it.
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
