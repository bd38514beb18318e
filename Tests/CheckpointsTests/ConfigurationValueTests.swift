import Checkpoints
import Foundation
import Testing

func configuration(_ text: String) throws -> ConfigurationValue {
    try ModelConfigurationFile.parse(Array(text.utf8), file: "config.json")
}

@Suite struct `A configuration` {
    @Test func `gives values by key and kind`() throws {
        let config = try configuration(
            """
            {"layers": 61, "theta": 10000, "scale": 2.5, "norm": true, "type": "deepseek_v32", "none": null,
             "million": 1e6, "ratios": [0, 4, 128], "eos": 1,
             "rope": {"factor": 40.0, "deep": {"x": -9223372036854775808}}, "text": "\\u00e9\\ud83d\\ude00\\"\\/\\n"}
            """)
        #expect(try config.int("layers", in: 1...1000) == 61)
        #expect(try config.int("million", in: 0 ... .max) == 1_000_000)
        #expect(try config.double("theta", in: 1...1e9) == 10000)
        #expect(try config.double("scale", in: 0...10) == 2.5)
        #expect(try config.bool("norm"))
        #expect(try config.string("type", oneOf: ["deepseek_v3", "deepseek_v32"]) == "deepseek_v32")
        #expect(try config.string("text") == "é😀\"/\n")
        #expect(try config.intArray("ratios", in: 0...128) == [0, 4, 128])
        #expect(try config.intArray("eos", in: 0...10, acceptingSingle: true) == [1])
        #expect(try config.object("rope").int("factor", in: 0...100) == 40)
        #expect(try config.object("rope").object("deep").int("x", in: .min...0) == .min)
        #expect(try config.object("rope").keys == ["deep", "factor"])
    }

    @Test func `tells a missing key from null, and gives the default for both`() throws {
        let config = try configuration(#"{"none": null}"#)
        #expect(config.contains("none") && !config.contains("absent"))
        #expect(config.isNull("none") && !config.isNull("absent"))
        for key in ["none", "absent"] {
            #expect(try config.int(key, in: 0...9, default: 7) == 7)
            #expect(try config.double(key, in: 0...9, default: 0.5) == 0.5)
            #expect(try config.bool(key, default: true))
            #expect(try config.string(key, default: "x") == "x")
            #expect(try config.objectIfPresent(key) == nil)
        }
    }

    @Test func `names the path of the key, what was found and what is expected`() throws {
        let config = try configuration(#"{"rope_scaling": {"factor": "forty"}, "num_hidden_layers": -1}"#)
        let factor = try refusal { try config.object("rope_scaling").double("factor", in: 1...1000) }
        #expect(factor.subject == .key("rope_scaling.factor"))
        #expect(
            factor.description.hasPrefix(
                #"config.json: key "rope_scaling.factor": is "forty" where a number from 1.0 to 1000.0 is expected; "#))
        let layers = try refusal { try config.int("num_hidden_layers", in: 1...1000) }
        #expect(layers.description.contains(#"key "num_hidden_layers": is -1 where a whole number from 1 to 1000"#))
        let absent = try refusal { try config.int("hidden_size", in: 1 ... .max) }
        #expect(absent.description.contains(#"key "hidden_size": is missing; a whole number from 1 on is expected"#))
    }

    @Test(arguments: [
        ("0", "is 0"), ("1001", "is 1001"), ("-5", "is -5"), ("61.5", "is 61.5"), ("\"61\"", "is \"61\""),
        ("true", "is true"), ("null", "is null"), ("[61]", "is an array of 1"), ("{}", "is an object of 0 keys"),
        ("9223372036854775808", "is 9223372036854775808"), ("1e300", "is 1e300"),
        ("-9223372036854775809", "is -9223372036854775809"), ("9007199254740993.5", "is 9007199254740993.5"),
    ])
    func `does not give a whole number for anything else`(text: String, found: String) throws {
        let config = try configuration(#"{"n": \#(text)}"#)
        #expect(try refusal { try config.int("n", in: 1...1000) }.problem.hasPrefix(found))
        if text != "null" {
            #expect(try refusal { try config.int("n", in: 1...1000, default: 5) }.problem.hasPrefix(found))
        }
    }

    @Test func `does not convert between kinds`() throws {
        let config = try configuration(#"{"one": 1, "word": "true", "list": [1, "x"], "object": {}, "real": 0.5}"#)
        #expect(try refusal { try config.bool("one") }.problem == "is 1 where true or false is expected")
        #expect(try refusal { try config.bool("word", default: false) }.problem.contains(#"is "true""#))
        #expect(try refusal { try config.string("one") }.problem == "is 1 where a string is expected")
        #expect(try refusal { try config.string("word", oneOf: ["a", "b"]) }.problem.contains(#"one of "a", "b""#))
        #expect(try refusal { try config.double("word", in: 0...1) }.problem.contains(#"is "true""#))
        #expect(
            try refusal { try config.double("one", in: 2...3) }.problem.contains("is 1 where a number from 2.0 to 3.0"))
        #expect(try refusal { try config.object("list") }.problem.contains("an array of 2 where an object"))
        #expect(try refusal { try config.objectIfPresent("one") }.problem.contains("is 1 where an object"))
        let list = try refusal { try config.intArray("list", in: 0...9) }
        #expect(list.subject == .key("list[1]"))
        #expect(try refusal { try config.intArray("list", in: 0...9, count: 3...3) }.problem.contains("an array of 2"))
        #expect(try refusal { try config.intArray("one", in: 0...9) }.problem.contains("is 1 where an array"))
        #expect(
            try refusal { try config.intArray("real", in: 0...9, acceptingSingle: true) }.problem.contains("is 0.5"))
    }
}

@Suite struct `A configuration file is refused` {
    @Test(arguments: [
        ("", "found the end"), ("[]", "holds an array"), ("7", "holds 7"), ("{} {}", "something follows"),
        (#"{"a":1,"a":2}"#, #"the key "a" occurs twice"#), (#"{"x":{"a":1,"\u0061":2}}"#, #"the key "a" occurs twice"#),
        (#"{"a":NaN}"#, #"found "NaN}""#), (#"{"a":Infinity}"#, "expected a JSON value"),
        (#"{"a":1e999}"#, "too large"),
        (#"{"a":01}"#, "superfluous zero"), (#"{"a":1.}"#, "expected a number"), (#"{"a":-}"#, "expected a number"),
        (#"{"a":1e}"#, "expected a number"), (#"{"a":.5}"#, "expected a JSON value"),
        (#"{"a":0x10}"#, "expected a comma"),
        (#"{"a":tru}"#, "expected a JSON value"), (#"{"a":truee}"#, "expected a comma"),
        (#"{"a":}"#, "expected a JSON value"),
        (#"{"a":[1,]}"#, "expected a JSON value"), (#"{"a":[1 2]}"#, "expected a comma"),
        (#"{"a":1,}"#, "expected a key"),
        ("{\"a\":1} // note", "something follows"), ("{\"a\": \"\t\"}", "control character"),
        ("\u{FEFF}{}", "expected a JSON value"), (#"{"a":"\ud800"}"#, "surrogate"),
    ])
    func `when it is not strict JSON`(text: String, problem: String) throws {
        let error = try refusal { try configuration(text) }
        #expect(error.file == "config.json")
        #expect(error.problem.contains(problem))
    }

    @Test func `when a number has very many digits`() throws {
        let digits = String(repeating: "1", count: 500)
        #expect(try refusal { try configuration(#"{"a":0.\#(digits)}"#) }.problem.contains("more than 400 characters"))
    }

    @Test func `when it is nested too deeply, and not before`() throws {
        func nested(_ depth: Int) -> String {
            #"{"a":"# + String(repeating: "[", count: depth - 1) + String(repeating: "]", count: depth - 1) + "}"
        }
        #expect(try configuration(nested(64)).contains("a"))
        #expect(try refusal { try configuration(nested(65)) }.problem.contains("nested too deeply"))
        #expect(
            try refusal { try configuration(#"{"a":"# + String(repeating: "[", count: 100_000)) }.problem
                .contains("nested too deeply"))
        #expect(
            try refusal { try configuration(String(repeating: #"{"a":"#, count: 100_000)) }.problem
                .contains("nested too deeply"))
    }

    @Test func `when it is larger than 4 MB, without being read`() throws {
        let directory = try TemporaryDirectory()
        let path = try directory.write("config.json", "{}")
        try #require(unsafe truncate(path, 1 << 40) == 0)
        let error = try refusal { try ModelConfigurationFile.read(path) }
        #expect(error.problem == "has \(1 << 40) bytes, more than the limit of 4194304")
    }

    @Test func `when it is missing, unless it may be`() throws {
        let directory = try TemporaryDirectory()
        let path = directory.file("generation_config.json")
        #expect(try refusal { try ModelConfigurationFile.read(path) }.description.contains(path))
        #expect(try ModelConfigurationFile.readIfPresent(path) == nil)
        try directory.write("generation_config.json", #"{"temperature": 0.6}"#)
        #expect(try ModelConfigurationFile.readIfPresent(path)?.double("temperature", in: 0...2) == 0.6)
        try FileManager.default.removeItem(atPath: path)
        try FileManager.default.createSymbolicLink(atPath: path, withDestinationPath: directory.file("gone"))
        #expect(try refusal { try ModelConfigurationFile.readIfPresent(path) }.problem.contains("cannot be opened"))
    }
}
