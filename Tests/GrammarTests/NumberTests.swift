import Grammar
import JSON
import Testing
import Tokenization

/// Tests that numbers within bounds can always end, whatever digits a model prefers.
@Suite struct NumberTests {
    static let schemas = [
        #"{"type":"number"}"#, #"{"type":"integer"}"#, "{}",
        #"{"type":"number","minimum":0,"maximum":1}"#, #"{"type":"number","exclusiveMinimum":0,"exclusiveMaximum":1}"#,
        #"{"type":"number","exclusiveMinimum":0.1,"exclusiveMaximum":0.10000000000000000000000000000000000001}"#,
        #"{"type":"integer","minimum":-5,"maximum":1200}"#, #"{"type":"integer","minimum":7}"#,
        #"{"type":"integer","maximum":-7}"#, #"{"type":"number","minimum":-1e-9}"#,
        #"{"type":"number","maximum":-3.25}"#,
        #"{"type":"number","multipleOf":0.01}"#, #"{"type":"number","multipleOf":0.25,"minimum":0.3}"#,
        #"{"type":"integer","multipleOf":7}"#, #"{"type":"number","multipleOf":3,"exclusiveMinimum":10}"#,
        #"{"type":"number","multipleOf":0.02,"maximum":0.5}"#, #"{"type":"integer","multipleOf":4999}"#,
        #"{"type":"number","multipleOf":0.000015}"#,
        #"{"type":"number","allOf":[{"multipleOf":0.5},{"multipleOf":0.75}]}"#,
        #"{"type":"number","minimum":1e150}"#,
    ]

    /// The digits that a model repeats.
    static let habits = ["0", "3", "9", "1", "03", "90", ".0", ".3", "-.9"]

    @Test(arguments: schemas)
    func `a model that repeats digits comes to an end, and what it wrote is valid`(text: String) throws {
        let compiled = try schema(text)
        // Beside larger steps the digits before the point are not limited, but a few always complete the number.
        let isLimited = !text.contains("4999")
        for habit in Self.habits {
            let habit = Array(habit.utf8)
            var (state, bytes) = (try compiled.start, [UInt8]())
            for step in 0..<600 {
                guard let next = try Self.next(state, habit, step) else { break }
                bytes.append(next)
                state = try #require(try state.advanced(by: [next]))
                let mask = try state.mask()
                #expect(!mask.isEmpty || state.mayEnd, "\(String(decoding: bytes, as: UTF8.self)) of \(text)")
            }
            if isLimited { #expect(bytes.count < 200, "\(text) with \(habit)") }
            let ending = try Self.ending(state)
            let written = String(decoding: bytes + ending, as: UTF8.self)
            #expect(ending.count < 40, "\(written) of \(text)")
            #expect(throws: Never.self) { try JSONValue(parsing: written) }
        }
    }

    /// Returns the next of the preferred digits that is allowed, or another digit; `nil` if no digit is.
    private static func next(_ state: GrammarState, _ habit: [UInt8], _ step: Int) throws -> UInt8? {
        let mask = try state.mask()
        let wanted = (0..<habit.count).map { habit[(step + $0) % habit.count] } + Array("0123456789.-".utf8)
        return wanted.first { mask.contains(Int32($0)) }
    }

    /// Returns the shortest bytes that complete a number.
    private static func ending(_ state: GrammarState) throws -> [UInt8] {
        var front = [(state: state, bytes: [UInt8]())]
        for _ in 0..<40 {
            if let done = front.first(where: { $0.state.mayEnd }) { return done.bytes }
            var next: [(state: GrammarState, bytes: [UInt8])] = []
            for (state, bytes) in front.prefix(2000) {
                let mask = try state.mask()
                for byte in Array("0123456789.".utf8) where mask.contains(Int32(byte)) {
                    next.append((try #require(try state.advanced(by: [byte])), bytes + [byte]))
                }
            }
            front = next
        }
        return Array(repeating: 0x30, count: 40)
    }

    @Test func `numbers of ordinary length are not limited`() throws {
        let unsigned256 = "115792089237316195423570985008687907853269984665640564039457584007913129639935"
        #expect(try schema(#"{"type":"integer"}"#).accepts(unsigned256))
        #expect(try schema(#"{"type":"integer","minimum":0}"#).accepts(unsigned256))
        #expect(try schema(#"{"type":"number"}"#).accepts("-0.123456789012345678901234567890e-299"))
        let fine = "0.123456789012345678901234567890"
        #expect(try schema(#"{"type":"number","maximum":1}"#).accepts(fine))
        #expect(try !schema(#"{"type":"number","maximum":1}"#).accepts(fine + "1"))
        #expect(try schema(#"{"type":"number","maximum":\#(fine)12345}"#).accepts(fine + "12345"))
        let whole = String(repeating: "9", count: 100)
        #expect(
            try schema(#"{"type":"integer"}"#).accepts(whole) && !schema(#"{"type":"integer"}"#).accepts(whole + "9"))
    }
}
