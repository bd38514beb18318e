import Foundation
import Testing
import braid

@Suite struct MeasurementTests {
    @Test func `percentiles lie on the line between neighbours`() {
        let values = Measurements([40, 10, 30, 20])
        #expect(values.median == 25)
        #expect(values.percentile(0) == 10)
        #expect(values.percentile(100) == 40)
        // The expected value is numpy.percentile([10, 20, 30, 40], 90).
        #expect(abs(values.percentile(90)! - 37) < 1e-12)
        #expect(values.mean == 25)
        #expect(abs(values.standardDeviation! - 125.0.squareRoot()) < 1e-12)
    }

    @Test func `one value is its own median and percentile`() {
        let values = Measurements([7])
        #expect(values.median == 7)
        #expect(values.percentile(99) == 7)
        #expect(values.standardDeviation == 0)
    }

    @Test func `nothing measured is nil and not zero`() {
        let values = Measurements([])
        #expect(values.median == nil)
        #expect(values.mean == nil)
        #expect(values.standardDeviation == nil)
        #expect(values.maximum == nil)
    }

    @Test func `results are written, or the reason is told`() throws {
        let folder = FileManager.default.temporaryDirectory.appendingPathComponent("braid-results-\(UUID())").path
        try FileManager.default.createDirectory(atPath: folder, withIntermediateDirectories: true)
        defer { try? FileManager.default.removeItem(atPath: folder) }
        for line in ["a", "b"] { try OutputFile(folder + "/results", option: "--output-file").append(line) }
        #expect(try String(contentsOfFile: folder + "/results", encoding: .utf8) == "a\nb\n")
        try OutputFile(folder + "/results", option: "--svg").write("c")
        #expect(try String(contentsOfFile: folder + "/results", encoding: .utf8) == "c")
        try #require(unsafe mkfifo(folder + "/pipe", 0o600) == 0)
        for (path, reason) in [
            (folder, "Is a directory"), (folder + "/none/results", "No such file"),
            (folder + "/pipe", "a pipe that nobody reads"), ("/dev/full", "No space left"),
        ] {
            let file = OutputFile(path, option: "--svg")
            for write in [file.append, file.write] {
                let error = #expect(throws: (any Error).self) { try write("a") }
                let text = error.map { "\($0)" } ?? ""
                #expect(text.hasPrefix("--svg: cannot write to '\(path)': ") && text.contains(reason), "\(text)")
            }
        }
    }

    @Test func `a file that was only checked is as it was`() throws {
        let folder = FileManager.default.temporaryDirectory.appendingPathComponent("braid-results-\(UUID())").path
        try FileManager.default.createDirectory(atPath: folder, withIntermediateDirectories: true)
        defer { try? FileManager.default.removeItem(atPath: folder) }
        let (file, link) = (folder + "/results", folder + "/link")
        try FileManager.default.createSymbolicLink(atPath: link, withDestinationPath: file)
        for path in [file, link] {
            try OutputFile(path, option: "--measure").check()
            #expect(!FileManager.default.fileExists(atPath: file))
        }
        #expect(try FileManager.default.destinationOfSymbolicLink(atPath: link) == file)
        try OutputFile(link, option: "--measure").append("a")
        try OutputFile(link, option: "--measure").check()
        #expect(try String(contentsOfFile: file, encoding: .utf8) == "a\n")
    }

    @Test func `lengths are read, sorted and made unique`() throws {
        let read = ascendingCounts(1...1 << 20)
        #expect(try read("4K, 1024,1K,1k") == [1000, 1024, 4096])
        for text in ["", "1,", "-1", "0", "1.5K", "K", "99999999999999999999", "4294967297", "1,2M"] {
            let error = #expect(throws: (any Error).self, "\(text)") { try read(text) }
            #expect("\(error as Any)".contains("between 1 and 1048576"), "\(error as Any)")
        }
    }
}
