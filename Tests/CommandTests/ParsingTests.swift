import ArgumentParser
import Inference
import Testing
import braid

@Suite struct `Numbers on the command line` {
    private static let largest = "9223372036854775807"

    @Test func `are read where they are in range`() throws {
        #expect(try Parsing.count(-1...9)("-1") == -1)
        #expect(try Parsing.count(0...9)("9") == 9)
        #expect(try Parsing.count(0...1 << 30)("32k") == 32_000)
        #expect(try Parsing.count(0...1 << 30)("32K") == 32_768)
        #expect(try Parsing.count(-9000...0)("-8k") == -8000)
        #expect(try Parsing.count(0...1 << 30)("1M") == 1 << 20)
        #expect(try Parsing.seconds(0...86_400)("60") == 60)
        #expect(try Parsing.seconds(0...86_400)("90s") == 90)
        #expect(try Parsing.seconds(0...86_400)("5m") == 300)
        #expect(try Parsing.seconds(0...86_400)("24h") == 86_400)
        #expect(try Parsing.seconds(0...86_400)("300.0") == 300)
        #expect(try Parsing.seconds(0...86_400)("1.5m") == 90)
        #expect(try Parsing.seconds(0...86_400)("4.35h") == 15_660)
        #expect(try Parsing.seconds(0...86_400)("0.5h") == 1800)
        #expect(try Parsing.number(0...1)("0.25") == 0.25)
        #expect(try Parsing.bytes(0...1 << 50)("17") == 17)
        #expect(try Parsing.bytes(0...1 << 50)("17B") == 17)
        #expect(try Parsing.bytes(0...1 << 50)("500MB") == 500_000_000)
        #expect(try Parsing.bytes(0...1 << 50)("20GiB") == 20 << 30)
        #expect(try Parsing.bytes(0...1 << 50)("1TiB") == 1 << 40)
    }

    @Test(arguments: ["", "B", "GiB", "-1GiB", "1.5GiB", "20 GiB", "9999999999TiB", "2PiB", "0MB", "1GiB2"])
    func `of bytes are refused where they are none`(text: String) {
        #expect(throws: ValidationError.self) { _ = try Parsing.bytes(1...1 << 50)(text) }
    }

    @Test(arguments: [
        largest, "-9223372036854775808", "99999999999999999999999", "-99999999999999999999999", "10", "-1", "", "-",
        "1.5",
        "1e3", "0x7", "٣", "nan", "5 ", "\(largest)h", "\(largest)K", "5d", "5G", "K5", "h",
    ])
    func `are refused with the range where they are not`(text: String) {
        for parse in [Parsing.count(0...9), Parsing.seconds(0...9)] {
            let error = #expect(throws: ValidationError.self) { _ = try parse(text) }
            #expect(error?.message.contains("between 0 and 9") ?? false, "\(error?.message ?? "")")
        }
        if text != "10", text != "1e3", text != Self.largest {
            #expect(throws: ValidationError.self) { _ = try Parsing.number(0...1)(text) }
        }
    }

    @Test(arguments: [
        ("0.5", "it is 0.5 seconds, no whole number"), ("1.01m", "seconds, no whole number"),
        ("99.0", "nearest legal value is 64"), ("1e3", "a duration in seconds"), (".0", "a duration in seconds"),
        ("1.", "a duration in seconds"), ("1.0.0", "a duration in seconds"), ("-1.0", "a duration in seconds"),
    ])
    func `of seconds with decimals are refused where they are no whole seconds`(text: String, words: String) {
        let error = #expect(throws: ValidationError.self) { _ = try Parsing.seconds(0...64)(text) }
        #expect(error?.message.contains(words) == true, "\(error?.message ?? "")")
    }

    @Test(arguments: ["0x10", "0x1p3", "nan", "inf", "infinity", "-inf", "1_0", "١", "1,0", "", " 1", "1e", "0b1"])
    func `with decimals are refused where they are not decimal`(text: String) {
        #expect(throws: ValidationError.self) { _ = try Parsing.number(0...1e9)(text) }
        for unit in ["", "s", "ms"] {
            #expect(throws: ValidationError.self, "\(text)\(unit)") { _ = try Parsing.duration(text + unit) }
        }
    }

    @Test func `with decimals may have an exponent`() throws {
        #expect(try Parsing.number(0...1e9)("+2.5e1") == 25)
        #expect(try Parsing.duration("2.5e2ms") == 0.25)
        #expect(try Parsing.duration("1E1") == 10)
    }

    @Test func `that are too large or small come with the nearest legal value`() {
        func message(_ text: String) -> String? {
            #expect(throws: ValidationError.self) { _ = try Parsing.count(1...64)(text) }?.message
        }
        #expect(
            message("99999999999999999999999")
                == "it is not a whole number between 1 and 64; the nearest legal value is 64")
        #expect(message("0") == "it is not a whole number between 1 and 64; the nearest legal value is 1")
        #expect(message("four") == "it is not a whole number between 1 and 64")
    }

    @Test func `of ranks are bounded by those of a job, so that the nearest legal value is one`() {
        let error = #expect(throws: (any Error).self) {
            try EngineOptions.parse(["--model-path", "m", "--tp-size", "1000000000", "--dp-size", "1000000000"])
        }
        let message = error.map { EngineOptions.message(for: $0) } ?? ""
        #expect(message.contains("--tp-size"), "\(message)")
        #expect(message.contains("between 0 and 64; the nearest legal value is 64"), "\(message)")
    }

    @Test(arguments: [
        "--nnodes \(largest)", "--nnodes 2147483647", "--node-rank \(largest)", "--node-rank=-1",
        "--ranks-per-process \(largest)", "--ranks-per-process 0",
    ])
    func `of processes are bounded`(arguments: String) {
        #expect(throws: (any Error).self) {
            try ProcessOptions.parse(arguments.split(separator: " ").map(String.init))
        }
    }

    @Test(arguments: [
        "--watchdog-timeout", "--page-size", "--max-total-tokens", "--kv-cache-memory-bytes", "--context-length",
        "--max-running-requests", "--max-queued-requests", "--chunked-prefill-size", "--speculative-num-steps",
        "--tp-size",
        "--attn-cp-size", "--attn-dp-size", "--ep-size", "--pp-size", "--dcp-size", "--dcp-interleave",
        "--dcp-min-keys",
        "--moe-dense-tp-size", "--threads-per-rank",
    ])
    func `of the engine are bounded`(name: String) {
        let others = ["--model-path", "m", "--speculative-algorithm", "NEXTN"]
        for value in [Self.largest, "-9223372036854775808", "99999999999999999999999", "two"] {
            #expect(throws: (any Error).self, "\(name) \(value)") {
                try EngineOptions.parse(others + ["\(name)=\(value)"])
            }
        }
    }
}

@Suite struct `What processes tell each other of their options` {
    private static func agreed(_ arguments: [String]) throws -> [String: String] {
        let options = try EngineOptions.parse(arguments)
        return Dictionary(uniqueKeysWithValues: options.agreed.map { ($0.name, $0.value) })
    }

    @Test func `is the same for two spellings of the same`() throws {
        let one = try Self.agreed(["--model-path", "/a", "--tp", "4", "--kv-cache-dtype", "bf16"])
        let other = try Self.agreed(["--kv-cache-dtype=bfloat16", "--tensor-parallel-size=4", "--model", "/b/c"])
        #expect(one == other)
        #expect(one["--tp-size"] == "4" && one["--kv-cache-dtype"] == "bfloat16")
    }

    @Test func `differs in the option that differs alone, and has no file's name`() throws {
        let one = try Self.agreed(["--model-path", "/private/model"])
        let changes = [
            ("--page-size", "32"), ("--tp-size", "2"), ("--dcp-interleave", "2"), ("--max-total-tokens", "5"),
            ("--context-length", "7"), ("--dtype", "bfloat16"), ("--kv-cache-dtype", "fp8_e4m3"),
            ("--load-format", "dummy"), ("--cp-strategy", "zigzag"), ("--watchdog-timeout", "7"),
            ("--kernels", "reference"),
        ]
        for (name, value) in changes {
            let other = try Self.agreed(["--model-path", "/private/model", name, value, "--trace", "/private/trace"])
            #expect(one.keys.filter { one[$0] != other[$0] } == [name])
            #expect(
                !other.values.contains { $0.contains("private") }
                    && !other.keys.contains { $0.contains("key") && $0.contains("api") })
        }
    }
}
