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
            try given.mpirunLine(arguments.split(separator: " ").map(String.init), program: "/opt/braid", isRoot: false)
                == "printf 'Name of the other host: '; read -r hosts; "
                + "mpirun -np 2 --host 10.0.0.1,\"$hosts\" --bind-to none /opt/braid serve --model-path m --tp-size 8")
    }

    @Test(arguments: ["127.0.0.1:5000", "localhost:5000", "[::1]:5000", "tcp://127.0.0.1:5000"])
    func `of nodes on one machine lead to processes of it`(address: String) throws {
        let line = try options("--nnodes 2 --node-rank 0 --dist-init-addr \(address)")
            .mpirunLine(["serve", "--model", "it's"], program: "/a b/braid", isRoot: true)
        #expect(
            line
                == "mpirun -np 2 --allow-run-as-root --oversubscribe --bind-to none '/a b/braid' serve --model 'it'\\''s'"
        )
    }

    @Test(arguments: ["--nnodes 2 --node-rank 2", "--nnodes 2 --node-rank 5", "--node-rank 1"])
    func `with a node that does not exist are refused`(arguments: String) throws {
        let error = try #require(throws: (any Error).self) {
            try options(arguments).mpirunLine(["serve"], program: "braid", isRoot: false)
        }
        #expect("\(error)".hasPrefix("--node-rank: ") && "\(error)".contains("legal: 0"))
    }

    @Test func `keep the key out of the line that they print`() throws {
        let given = try options("--nnodes 2")
        for arguments in [["serve", "--api-key", "s3cret", "--tp", "2"], ["serve", "--api-key=s3cret", "--tp", "2"]] {
            let line = try #require(try given.mpirunLine(arguments, program: "braid", isRoot: false))
            #expect(line.hasSuffix("braid serve --api-key \"$BRAID_API_KEY\" --tp 2"), "\(line)")
        }
        for arguments in [
            ["serve", "--api-key", "one", "two", "--tp", "2"],
            ["serve", "--api-key=one", "--api_key", "two", "--tp", "2"],
            ["serve", "--api-key", "one", "--api-key=two", "--tp", "2"],
        ] {
            let line = try #require(try given.mpirunLine(arguments, program: "braid", isRoot: false))
            let words = line.split(separator: " ").filter { $0 != "--api-key" }.joined(separator: " ")
            #expect(words.hasSuffix("braid serve \"$BRAID_API_KEY\" \"$BRAID_API_KEY_2\" --tp 2"), "\(line)")
        }
    }

    @Test(arguments: ["", "--nnodes 1", "--nnodes 1 --node-rank 0", "--ranks-per-process 2", "--dist-init-addr h:1"])
    func `that ask for one host start at once`(arguments: String) throws {
        #expect(try options(arguments).mpirunLine(["serve"], program: "braid", isRoot: false) == nil)
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
