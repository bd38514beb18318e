import ArgumentParser
import Testing
import braid

@Suite struct `Process options` {
    private func options(_ arguments: String) throws -> ProcessOptions {
        try ProcessOptions.parse(arguments.split(separator: " ").map(String.init))
    }

    @Test func `of other engines lead to mpirun`() throws {
        let arguments = "serve --nnodes 2 --model-path m --node-rank=1 --dist-init-addr 10.0.0.1:5000 --tp-size 8"
        let given = try options("--nnodes 2 --node-rank=1 --dist-init-addr 10.0.0.1:5000")
        #expect(
            given.mpirunLine(arguments.split(separator: " ").map(String.init))
                == "mpirun -np 2 --host 10.0.0.1:1,HOST1:1 --bind-to none "
                + "braid serve --model-path m --tp-size 8")
    }

    @Test func `keep the key out of the line that they print`() throws {
        let given = try options("--nnodes 2")
        for arguments in [["serve", "--api-key", "s3cret", "--tp", "2"], ["serve", "--api-key=s3cret", "--tp", "2"]] {
            let line = try #require(given.mpirunLine(arguments))
            #expect(line.hasSuffix("braid serve --api-key \"$BRAID_API_KEY\" --tp 2"), "\(line)")
        }
    }

    @Test(arguments: ["", "--nnodes 1", "--nnodes 1 --node-rank 0", "--ranks-per-process 2"])
    func `that ask for one host start at once`(arguments: String) throws {
        #expect(try options(arguments).mpirunLine(["serve"]) == nil)
    }

    @Test func `that do not fit are refused with what would`() throws {
        #expect(try options("").problem(ranks: 8, processes: 4) == nil)
        #expect(try options("--ranks-per-process 2").problem(ranks: 8, processes: 4) == nil)
        #expect(
            try options("").problem(ranks: 6, processes: 4)
                == "mpirun -np: 6 ranks cannot be divided evenly among 4 processes; legal: 1, 2, 3, 6")
        #expect(
            try options("--ranks-per-process 3").problem(ranks: 8, processes: 4)
                == "--ranks-per-process: 3 in 4 processes are not the layout's 8 ranks; legal: 2")
    }
}
