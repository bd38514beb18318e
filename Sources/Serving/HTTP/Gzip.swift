/// Unpacks data in the format of gzip (RFC 1952): one or more members, whose blocks are those of DEFLATE (RFC 1951).
///
/// A few bytes can unpack to a thousand times as many, so every growth of the output is announced first.
struct Gzip {
    enum Problem: Error {
        case notGzip
        case damaged
    }

    private let input: [UInt8]
    private var position = 0
    /// The bits that were taken from `input` and not used, the next one lowest.
    private var bits: UInt32 = 0
    private var bitCount = 0
    private var output: [UInt8] = []
    /// The number of bytes of `output` that earlier members unpacked to.
    private var memberStart = 0
    /// Called with the number of bytes that the output may soon have.
    private let willGrow: (Int) throws -> Void
    private var announced = 0

    private init(_ input: [UInt8], _ willGrow: @escaping (Int) throws -> Void) {
        self.input = input
        self.willGrow = willGrow
    }

    /// Returns the unpacked data.
    ///
    /// - Parameter willGrow: a closure that receives the number of bytes that the output may soon have, at least every
    ///   64 KiB, and throws if they are too many or the work is no longer wanted.
    /// - Throws: `Problem` if the data is not gzip or is damaged, or what `willGrow` throws.
    static func unpack(_ input: [UInt8], willGrow: (Int) throws -> Void) throws -> [UInt8] {
        try withoutActuallyEscaping(willGrow) { willGrow in
            var gzip = Gzip(input, willGrow)
            repeat {
                try gzip.skipHeader()
                try gzip.inflate()
                try gzip.checkTrailer()
            } while gzip.position < input.count
            return gzip.output
        }
    }

    // MARK: - Frame

    private mutating func byte() throws -> UInt8 {
        guard position < input.count else { throw Problem.damaged }
        defer { position += 1 }
        return input[position]
    }

    private mutating func skipHeader() throws {
        let header = input[position...].prefix(Self.headerBytes)
        guard input.count - position >= Self.headerBytes + Self.trailerBytes, header.starts(with: [0x1F, 0x8B, 8]),
            let flags = header.dropFirst(3).first, flags & 0xE0 == 0
        else { throw position == 0 ? Problem.notGzip : Problem.damaged }
        position += Self.headerBytes
        if flags & 4 != 0 {
            let length = Int(try byte()) + Int(try byte()) << 8
            position += length
        }
        // The names of the file and of its comment end with zeros.
        for flag in [8, 16] as [UInt8] where flags & flag != 0 { while try byte() != 0 {} }
        if flags & 2 != 0 { position += 2 }
    }

    private static let headerBytes = 10
    private static let trailerBytes = 8

    private mutating func checkTrailer() throws {
        // Whole bytes that were taken as bits are given back.
        position -= bitCount / 8
        (bits, bitCount) = (0, 0)
        var (sum, size): (UInt32, UInt32) = (0, 0)
        for shift in stride(from: UInt32(0), to: 32, by: 8) { sum |= UInt32(try byte()) << shift }
        for shift in stride(from: UInt32(0), to: 32, by: 8) { size |= UInt32(try byte()) << shift }
        let member = output[memberStart...]
        guard size == UInt32(truncatingIfNeeded: member.count), sum == Self.checksum(member) else {
            throw Problem.damaged
        }
        memberStart = output.count
    }

    private static let checksums: [UInt32] = (0..<256).map { byte in
        (0..<8).reduce(UInt32(byte)) { sum, _ in sum & 1 == 1 ? 0xEDB8_8320 ^ (sum >> 1) : sum >> 1 }
    }

    /// Returns the CRC-32 of the data.
    static func checksum(_ bytes: some Sequence<UInt8>) -> UInt32 {
        ~bytes.reduce(~0) { sum, byte in checksums[Int((sum ^ UInt32(byte)) & 0xFF)] ^ (sum >> 8) }
    }

    // MARK: - Blocks

    private mutating func take(_ count: Int) throws -> Int {
        while bitCount < count {
            bits |= UInt32(try byte()) << UInt32(bitCount)
            bitCount += 8
        }
        defer {
            bits >>= UInt32(count)
            bitCount -= count
        }
        return Int(bits & (UInt32(1) << UInt32(count) - 1))
    }

    private mutating func announce() throws {
        guard output.count + Self.longestMatch > announced else { return }
        announced = output.count + (64 << 10)
        try willGrow(announced)
    }

    private static let longestMatch = 258

    private mutating func inflate() throws {
        var isLast = false
        while !isLast {
            // Blocks may be empty, and each takes work.
            try willGrow(output.count)
            isLast = try take(1) == 1
            switch try take(2) {
            case 0: try copyStored()
            case 1: try inflate(Self.fixedLengths, Self.fixedDistances)
            case 2:
                let (lengths, distances) = try readCodes()
                try inflate(lengths, distances)
            default: throw Problem.damaged
            }
        }
    }

    private mutating func copyStored() throws {
        // Bits up to the next byte are unused; whole bytes that were taken are given back.
        position -= bitCount / 8
        (bits, bitCount) = (0, 0)
        let length = Int(try byte()) | Int(try byte()) << 8
        let complement = Int(try byte()) | Int(try byte()) << 8
        guard length ^ complement == 0xFFFF, length <= input.count - position else { throw Problem.damaged }
        try willGrow(output.count + length)
        output += input[position..<position + length]
        position += length
    }

    private mutating func inflate(_ lengths: Code, _ distances: Code) throws {
        while true {
            let symbol = try next(lengths)
            if symbol == 256 { return }
            try announce()
            if symbol < 256 {
                output.append(UInt8(symbol))
                continue
            }
            guard symbol - 257 < Self.lengthBases.count else { throw Problem.damaged }
            let length = Self.lengthBases[symbol - 257] + (try take(Self.lengthBits[symbol - 257]))
            let code = try next(distances)
            guard code < Self.distanceBases.count else { throw Problem.damaged }
            let distance = Self.distanceBases[code] + (try take(Self.distanceBits[code]))
            guard distance <= output.count - memberStart else { throw Problem.damaged }
            // The copied bytes may include some that this loop appends.
            for _ in 0..<length { output.append(output[output.count - distance]) }
        }
    }

    // MARK: - Codes

    /// A canonical Huffman code: the number of codes of each length, and the symbols in the order of their codes.
    private struct Code {
        var counts = Array(repeating: 0, count: 16)
        var symbols: [Int] = []

        /// - Throws: an error if the lengths name more codes than there are.
        init(_ lengths: [Int]) throws {
            for length in lengths where length > 0 { counts[length] += 1 }
            var left = 1
            for length in 1..<16 {
                left = left << 1 - counts[length]
                guard left >= 0 else { throw Problem.damaged }
            }
            symbols = lengths.indices.filter { lengths[$0] > 0 }.sorted { (lengths[$0], $0) < (lengths[$1], $1) }
        }
    }

    /// Reads the next symbol, bit by bit.
    private mutating func next(_ code: Code) throws -> Int {
        var (value, first, index) = (0, 0, 0)
        for length in 1..<16 {
            value |= try take(1)
            let count = code.counts[length]
            if value - first < count { return code.symbols[index + value - first] }
            index += count
            first = (first + count) << 1
            value <<= 1
        }
        throw Problem.damaged
    }

    /// Reads the two codes of a block, whose lengths are themselves coded.
    private mutating func readCodes() throws -> (lengths: Code, distances: Code) {
        let lengthCount = try take(5) + 257
        let distanceCount = try take(5) + 1
        let codeCount = try take(4) + 4
        guard lengthCount <= 286, distanceCount <= 30 else { throw Problem.damaged }
        var codeLengths = Array(repeating: 0, count: 19)
        for index in Self.codeOrder.prefix(codeCount) { codeLengths[index] = try take(3) }
        let code = try Code(codeLengths)
        var lengths: [Int] = []
        while lengths.count < lengthCount + distanceCount {
            switch try next(code) {
            case let length where length < 16: lengths.append(length)
            case 16:
                guard let last = lengths.last else { throw Problem.damaged }
                lengths += repeatElement(last, count: 3 + (try take(2)))
            case 17: lengths += repeatElement(0, count: 3 + (try take(3)))
            default: lengths += repeatElement(0, count: 11 + (try take(7)))
            }
        }
        guard lengths.count == lengthCount + distanceCount, lengths[256] > 0 else { throw Problem.damaged }
        return (try Code(Array(lengths[..<lengthCount])), try Code(Array(lengths[lengthCount...])))
    }

    private static let codeOrder = [16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15]
    private static let lengthBases = [
        3, 4, 5, 6, 7, 8, 9, 10, 11, 13, 15, 17, 19, 23, 27, 31, 35, 43, 51, 59, 67, 83, 99, 115, 131, 163, 195, 227,
        258,
    ]
    private static let lengthBits = [
        0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3, 4, 4, 4, 4, 5, 5, 5, 5, 0,
    ]
    private static let distanceBases = [
        1, 2, 3, 4, 5, 7, 9, 13, 17, 25, 33, 49, 65, 97, 129, 193, 257, 385, 513, 769, 1025, 1537, 2049, 3073, 4097,
        6145, 8193, 12289, 16385, 24577,
    ]
    private static let distanceBits = (0..<30).map { max(0, $0 / 2 - 1) }

    /// The codes of blocks that bring none.
    private static let fixedLengths = fixed(
        (0..<288).map { $0 < 144 ? 8 : $0 < 256 ? 9 : $0 < 280 ? 7 : 8 })
    private static let fixedDistances = fixed(Array(repeating: 5, count: 30))

    private static func fixed(_ lengths: [Int]) -> Code {
        do { return try Code(lengths) } catch { fatalError("the fixed codes of RFC 1951 are not codes") }
    }
}
