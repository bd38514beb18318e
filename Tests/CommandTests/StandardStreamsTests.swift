import Foundation
import Testing

@Suite(.timeLimit(.minutes(15))) struct `Standard streams of the program` {
    private static let generate = "generate \(Program.demo) --prompt a --max-new-tokens 2"
    private static let hasFull = FileManager.default.fileExists(atPath: "/dev/full")
    private static let hasProc = FileManager.default.fileExists(atPath: "/proc/self/fd")

    @Test(
        .enabled(if: hasFull), arguments: [generate, "plan --hardware h20x8", "inspect \(Program.demo)", "--version"])
    func `that lose what is printed are an error with the reason`(line: String) throws {
        for (output, reason) in [("> /dev/full", "No space left"), (">&-", "")] {
            // Whether the lines are written at the end or each by itself.
            for run in ["braid", "stdbuf -oL braid"] {
                let (status, errors) = try Program.shell("\(run) \(line) \(output)").outcome()
                let words = "standard output cannot be written: \(reason)"
                #expect(status == 1 && errors.contains(words), "\(run) \(line) \(output): \(status), \(errors)")
            }
        }
    }

    @Test(.enabled(if: hasFull), arguments: ["2> /dev/full", "2>&-", "<&- >&- 2>&-"])
    func `that cannot be written change no status of an error`(streams: String) throws {
        for line in ["serve /nowhere", "serve \(Program.demo) --port 0 --page-size 48", "plan --hardware nothing"] {
            let status = try Program.shell("braid \(line) \(streams)").outcome().status
            #expect(status == 1, "\(line) \(streams)")
        }
    }

    @Test(.enabled(if: hasProc)) func `that are closed do not become those of sockets or files`() throws {
        let server = try Program.shell("braid serve \(Program.demo) --port 0 <&- >&-")
        defer { server.end() }
        #expect(server.says("ready: "))
        #expect(server.file(0) == "/dev/null" && server.file(1) == "/dev/null")
    }

    @Test(arguments: ["plan --hardware h20x8", "router --port 0 --worker-urls http://127.0.0.1:1", generate])
    func `and other files that are too few are refused with both numbers`(line: String) throws {
        let (status, errors) = try Program.shell("sh -c 'ulimit -n 12; exec braid \(line)'").outcome()
        #expect(status == 1, "\(errors)")
        #expect(errors.contains("12 files may be open") && errors.contains("ulimit -n"), "\(errors)")
    }
}
