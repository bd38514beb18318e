import JSON
import TestSupport
import Testing

/// Counts calls of `mayContinue`, one per 4096 values, which measures work without a clock. Reading is given up after
/// five minutes: a time limit of the test would not end it.
private func slices(_ text: String) throws -> Int {
    var slices = 0
    let start = ContinuousClock.now
    _ = try JSONValue(parsing: text.utf8) {
        slices += 1
        return start.duration(to: .now) < .seconds(300)
    }
    return slices
}

@Suite struct `Reading hostile JSON` {
    /// A search through all earlier keys would take hours, and would be given up.
    @Test func `takes time in proportion to the number of keys`() throws {
        let keys = (0..<400_000).map { "\"\($0)\":0" }.joined(separator: ",")
        #expect(try slices("{\(keys)}") == 800_001 / 4096)
        #expect(try slices("[{\(keys)},{\(keys)}]") == 1_600_003 / 4096)
    }

    @Test func `takes little longer for long keys that begin alike than for keys that differ at once`() throws {
        func seconds(_ key: (Int) -> String) throws -> Double {
            let bytes = Array("{\((0..<60_000).map { "\"\(key($0))\":0" }.joined(separator: ","))}".utf8)
            let before = threadSeconds()
            #expect(try JSONValue(parsing: bytes).object?.count == 60_000)
            return threadSeconds() - before
        }
        let filling = String(repeating: "k", count: 394)
        let differing = try seconds { String($0 + 100_000) + filling }
        let alike = try seconds { filling + String($0 + 100_000) }
        // Some keys are compared with others of the same length, to their ends if these begin alike.
        #expect(alike < 2 * differing, "\(alike) s, \(differing) s")
    }

    @Test func `refuses depth before it is reached`() {
        for opening in ["[", "{\"a\":", "[{\"\":"] {
            let text = String(repeating: opening, count: 1_000_000)
            let error = #expect(throws: JSONError.self) { try JSONValue(parsing: text) }
            #expect(error?.problem.contains("nested too deeply") == true && error!.offset < 1000)
        }
    }

    @Test func `takes long strings, numbers and white space`() throws {
        let blanks = String(repeating: " ", count: 4 << 20)
        #expect(try JSONValue(parsing: blanks + "\"" + blanks + "\"" + blanks).string == blanks)
        #expect(throws: JSONError.self) { try JSONValue(parsing: String(repeating: "1", count: 4 << 20)) }
        #expect(throws: JSONError.self) { try JSONValue(parsing: "\"" + blanks) }
    }
}
