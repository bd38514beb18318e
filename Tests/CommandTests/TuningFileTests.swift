import DeepSeekV32
import Foundation
import Modeling
import Models
import Planning
import Tensors
import Testing
import braid

@Suite("Sizes of blocks that were measured") struct TuningFileTests {
    private static let processor = "Processor 9000 (family 1, model 2)"

    /// Calls `body` with the path of a file that contains this text, or of a missing file.
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
    ])
    func `a file that is not right is refused with a reason`(text: String, reason: String) throws {
        try withFile(text) { #expect(refusal($0).contains(reason)) }
    }

    @Test func `no file, a directory and a large file are refused`() throws {
        try withFile(nil) { path in
            #expect(refusal(path).contains("cannot be opened: No such file"))
            #expect(refusal(path.replacingOccurrences(of: "/tuning.json", with: "")).contains("is not a regular file"))
        }
        try withFile(String(repeating: " ", count: 2 << 20)) { #expect(refusal($0).contains("more than")) }
    }

    @Test(arguments: [
        (#"{"gemv_max_rows_bf16": -1}"#, "a gemv_max_rows_bf16 of -1 is not between 0 and 1024"),
        (#"{"index_row_tile": 0}"#, "a index_row_tile of 0 is not between 1 and 4096"),
        (#"{"gemv_max_rows": 8}"#, "'gemv_max_rows' is no setting"),
    ])
    func `numbers that cannot be are refused, of the model that is asked for`(tuning: String, reason: String) throws {
        let text = #"{"format": 1, "processor": "p", "models": {"m": {"date": "", "tuning": \#(tuning)}}}"#
        try withFile(text) { path in
            let file = try TuningFile(path: path, for: "p")
            #expect(try file.tuning(for: "another") == nil)
            let error = #expect(throws: (any Error).self) { try file.tuning(for: "m") }
            #expect(String(describing: error).contains(reason))
        }
    }

    @Test func `settings that were not measured stay`() throws {
        var (byHand, found) = (Tuning(), Tuning())
        byHand.minParallelWork = 99
        byHand.indexKeyTiles = 3
        found.gemvMaxRows.bf16 = 7
        var file = TuningFile(processor: Self.processor)
        file.models["m"] = TuningFile.Entry(byHand, date: "")
        file.keep(found, measured: ["gemv_max_rows_bf16", "index_key_tiles"], for: "m", date: "today")
        #expect(file.models["m"]?.tuning == ["gemv_max_rows_bf16": 7, "min_parallel_work": 99])
        #expect(file.models["m"]?.date == "today")
        file.models["m"]?.tuning.merge(["spins": -1, "gemv_max_rows": 8]) { $1 }
        file.keep(found, measured: [], for: "m", date: "today")
        #expect(file.models["m"]?.tuning == ["gemv_max_rows_bf16": 7, "min_parallel_work": 99])
    }

    @Test func `the user's cache is where the environment says, if anywhere`() {
        let name = "/braid/tune/"
        #expect(TuningFile.standardPath(["HOME": "/home/ann"])?.hasPrefix("/home/ann/.cache" + name) == true)
        #expect(
            TuningFile.standardPath(["HOME": "/h", "XDG_CACHE_HOME": "/caches"])?.hasPrefix("/caches" + name) == true)
        #expect(TuningFile.standardPath(["HOME": "relative", "XDG_CACHE_HOME": ""]) == nil)
        #expect(TuningFile.standardPath([:]) == nil)
    }

    @Test func `commands take what fits, warn of what does not, and insist on a file that was named`() throws {
        let root = URL(filePath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
            .deletingLastPathComponent()
        let model = try ModelDirectory(root.path + "/Benchmarks/models/small").description
        let key = TuningFile.key(model, .avx2)
        try withFile(nil) { path in
            let none = try ChosenTuning(nil, model, .avx2, standard: path)
            #expect(none.tuning == Tuning() && none.warning == nil)
            #expect(throws: (any Error).self) { try ChosenTuning(path, model, .avx2, standard: nil) }
            #expect(try ChosenTuning(nil, model, .avx2, standard: nil).tuning == Tuning())
        }
        var found = Tuning()
        found.indexKeyTiles = 5
        try withFile("") { path in
            let bad = try ChosenTuning(nil, model, .avx2, standard: path)
            #expect(bad.tuning == Tuning() && bad.warning?.contains(path) == true)
            var file = TuningFile(processor: Processor.name)
            file.keep(found, measured: ["index_key_tiles"], for: key, date: "")
            try file.write(to: path)
            let good = try ChosenTuning(nil, model, .avx2, standard: path)
            #expect(good.tuning == found && good.warning == nil && good.summary == "index_key_tiles 5, \(path)")
            #expect(try ChosenTuning(path, model, .avx2, standard: nil).tuning == found)
            #expect(try ChosenTuning("off", model, .avx2, standard: path).tuning == Tuning())
            // The file has no entry for this level.
            #expect(try ChosenTuning(nil, model, .avx512, standard: path).tuning == Tuning())
            let error = #expect(throws: (any Error).self) { try ChosenTuning(path, model, .avx512, standard: nil) }
            #expect(String(describing: error).contains("avx512: hidden"))
        }
    }

    @Test func `a boundary is taken where it pays and nowhere costs`() {
        /// The seconds of both ways by size, and those of the usual boundary.
        func boundary(_ first: [Double], _ second: [Double], usual: Int) -> Int? {
            TuningBench.boundary(Array(1...first.count)) { size in
                [first[size - 1], second[size - 1], size <= usual ? first[size - 1] : second[size - 1]]
            }.size
        }
        #expect(boundary([1, 2, 3, 4], [2, 2.5, 3.5, 3], usual: 1) == 3)
        #expect(boundary([1, 2, 3, 4], [2, 2.5, 3.5, 3], usual: 3) == nil)
        #expect(boundary([1, 2, 3, 4], [2, 2.5, 3.5, 3], usual: 4) == 3)
        // A loss at one size ends the search, whatever is gained by chance at larger ones.
        #expect(boundary([1, 3, 1, 1], [2, 2, 1.1, 1.1], usual: 0) == 1)
        // A boundary that costs time at some size is not taken.
        #expect(boundary([1, 3, 1, 1], [2, 2, 2, 2], usual: 4) == nil)
        // The first way is never faster.
        #expect(boundary([2, 2, 2], [1, 1, 1], usual: 3) == 1)
        // The gain is within the margin of chance.
        #expect(boundary([1, 1, 1], [1.02, 1.02, 1.02], usual: 0) == nil)
    }

    @Test func `a processor's name makes a file's name and no path`() {
        #expect(TuningFile.fileName(of: "AMD EPYC (family 26, model 2)") == "amd-epyc-family-26-model-2.json")
        #expect(TuningFile.fileName(of: "../../etc/passwd é") == "etc-passwd.json")
    }
}
