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
    /// More than any step's rows take; what claims more is no message.
    private static let maxBytes = 1 << 37

    package let kind: Kind
    /// Which of the sets of ranks that follow each other in a job.
    package let epoch: UInt64
    /// Within the epoch.
    let channel: UInt64
    /// Of a channel's messages from one process, from 0.
    let number: UInt64
    package let bodyBytes: Int
    private let memory: UnsafeMutableRawPointer

    /// Bytes of head and body, whole units.
    var bytes: Int { Self.bytes(body: bodyBytes) }

    /// A message with a body that is still to be written.
    package init(_ kind: Kind, epoch: UInt64 = 0, channel: UInt64 = 0, number: Int = 0, bodyBytes: Int) {
        self.kind = kind
        self.epoch = epoch
        self.channel = channel
        self.number = UInt64(number)
        self.bodyBytes = bodyBytes
        unsafe memory = Self.allocate(Self.bytes(body: bodyBytes))
        unsafe memory.storeBytes(of: Self.magic, as: UInt32.self)
        unsafe memory.storeBytes(of: Self.version, toByteOffset: 4, as: UInt16.self)
        unsafe memory.storeBytes(of: kind.rawValue, toByteOffset: 6, as: UInt16.self)
        for (place, value) in [epoch, channel, self.number, UInt64(bodyBytes)].enumerated() {
            unsafe memory.storeBytes(of: value, toByteOffset: 8 + 8 * place, as: UInt64.self)
        }
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
            unsafe memory.deallocate()
            return nil
        }
        self.kind = kind
        (epoch, channel, number) = (word(0), word(1), word(2))
        bodyBytes = Int(word(3))
        unsafe self.memory = memory
    }

    deinit { unsafe memory.deallocate() }

    /// Memory for so many bytes to arrive in.
    @unsafe static func allocate(_ bytes: Int) -> UnsafeMutableRawPointer {
        .allocate(byteCount: bytes, alignment: unit)
    }

    private static func bytes(body: Int) -> Int { (unit + body + unit - 1) / unit * unit }

    /// Head and body, for whoever carries them.
    @unsafe var start: UnsafeRawPointer { unsafe UnsafeRawPointer(memory) }

    /// `bodyBytes` bytes, valid as long as the message.
    @unsafe var body: UnsafeMutableRawPointer { unsafe memory + Self.unit }

    /// A copy of the body.
    package var bodyCopy: [UInt8] { unsafe Array(UnsafeRawBufferPointer(start: body, count: bodyBytes)) }
}
