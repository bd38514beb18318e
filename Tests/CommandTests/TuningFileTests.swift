import Foundation
import Tensors
import Testing
import braid

struct TuningFileTests {
    private static let processor = "Processor 9000 (family 1, model 2)"

    /// Calls `body` with the path of a file that has this text, or of none.
    private func withFile(_ text: String?, _ body: (String) throws -> Void) throws {
        let directory = FileManager.default.temporaryDirectory.appending(path: "braid-\(UUID())")
        try FileManager.default.createDirectory(at: directory, withIntermediateDirectories: true)
        defer { try? FileManager.default.removeItem(at: directory) }
        let file = directory.appending(path: "tuning.json")
        if let text { try Data(text.utf8).write(to: file) }
        try body(file.path)
    }

    private func refusal(_ path: String, processor: String = "p") -> String {
        let error = #expect(throws: (any Error).self) { try TuningFile(path: path, for: processor) }
        return String(describing: error)
    }

    @Test func `what was written is read again`() throws {
        var tuning = Tuning()
        for (index, setting) in Tuning.settings.enumerated() { tuning[keyPath: setting.path] = index + 3 }
        var file = TuningFile(processor: Self.processor)
        file.models["a model"] = TuningFile.Entry(tuning, date: "2026-11-21T00:00:00Z")
        file.models["another"] = TuningFile.Entry(Tuning(), date: "2026-11-21T00:00:00Z")
        try withFile(nil) { path in
            let path = path + "/in/directories/of/its/own.json"
            try file.write(to: path)
            let read = try TuningFile(path: path, for: Self.processor)
            #expect(read == file)
            #expect(try read.tuning(for: "a model") == tuning)
            #expect(try read.tuning(for: "another") == Tuning())
            #expect(try read.tuning(for: "a third") == nil)
        }
    }

    @Test func `a file of another processor is refused with both names`() throws {
        try withFile(#"{"format": 1, "processor": "Abacus", "models": {}}"#) { path in
            #expect(refusal(path, processor: "p 9").contains("measured on Abacus, and this is p 9"))
        }
    }

    @Test(arguments: [
        (#"{"#, "is not a file that braid tune wrote"),
        (#"{"format": 1, "processor": "p", "models": []}"#, "is not a file that braid tune wrote"),
        (#"{"format": 2, "processor": "p", "models": {}}"#, "is of format 2, where 1 is read"),
        (
            #"{"format": 1, "processor": "p", "models": {"m": {"date": "", "tuning": {"few_rows_bf16": -1}}}}"#,
            "has a few_rows_bf16 of -1, not between 0 and 1024"
        ),
        (
            #"{"format": 1, "processor": "p", "models": {"m": {"date": "", "tuning": {"scored_rows": 0}}}}"#,
            "has a scored_rows of 0, not between 1 and 4096"
        ),
        (
            #"{"format": 1, "processor": "p", "models": {"m": {"date": "", "tuning": {"few_rows": 8}}}}"#,
            "has 'few_rows', which is no setting"
        ),
    ])
    func `a file that is not right is refused with a reason`(text: String, reason: String) throws {
        try withFile(text) { #expect(refusal($0).contains(reason)) }
    }

    @Test func `no file, a directory and a large file are refused`() throws {
        try withFile(nil) { path in
            #expect(refusal(path).contains("cannot read"))
            #expect(refusal(path.replacingOccurrences(of: "/tuning.json", with: "")).contains("is not a file"))
        }
        try withFile(String(repeating: " ", count: 2 << 20)) { #expect(refusal($0).contains("more than")) }
    }

    @Test func `a processor's name makes a file's name and no path`() {
        #expect(TuningFile.fileName(of: "AMD EPYC (family 26, model 2)") == "amd-epyc-family-26-model-2.json")
        #expect(TuningFile.fileName(of: "../../etc/passwd é") == "etc-passwd.json")
    }
}
