// swift-tools-version: 6.2
import PackageDescription

/// One set of rules for every Swift target. Warnings become errors in `Scripts/check`, not here,
/// so that a newer compiler never breaks somebody's build.
let strict: [SwiftSetting] = [
    .strictMemorySafety(),
    .enableUpcomingFeature("ExistentialAny"),
    .enableUpcomingFeature("MemberImportVisibility"),
    .enableUpcomingFeature("InternalImportsByDefault"),
    .enableUpcomingFeature("NonisolatedNonsendingByDefault"),
]

/// - Parameter data: files and folders of files that become part of the program, so that it needs none beside it.
func library(_ name: String, _ dependencies: [Target.Dependency] = [], data: [String] = []) -> Target {
    .target(
        name: name, dependencies: dependencies, resources: data.map { .embedInCode($0) }, swiftSettings: strict)
}

/// - Parameter computes: true if the tests themselves compute so much that they are compiled with optimization. Others take
///   half as long to compile without; what they test is optimized.
func tests(
    _ name: String, _ dependencies: [Target.Dependency], excluding excluded: [String] = [], computes: Bool = false
) -> Target {
    .testTarget(
        name: name, dependencies: dependencies, exclude: excluded,
        swiftSettings: strict + (computes ? [] : [.unsafeFlags(["-Onone"])]))
}

// The arrows below are the architecture (ARCHITECTURE.md); `Scripts/check` compares them with the imports.
let package = Package(
    name: "braid",
    platforms: [.macOS(.v15)],
    products: [.executable(name: "braid", targets: ["braid"])],
    dependencies: [
        .package(url: "https://github.com/apple/swift-argument-parser", from: "1.8.0"),
        .package(url: "https://github.com/apple/swift-nio", from: "2.101.0"),
        .package(url: "https://github.com/hummingbird-project/hummingbird", from: "2.28.0"),
    ],
    targets: [
        .target(name: "CKernels"),
        .target(name: "CThreads"),
        // Where pkg-config does not know it, CMPI is built without MPI.
        .systemLibrary(name: "OpenMPI", pkgConfig: "ompi-c", providers: [.apt(["libopenmpi-dev"])]),
        .target(name: "CMPI", dependencies: ["OpenMPI"]),
        // Opens UCX when it is asked for, so nothing is linked. Where its headers are missing, it is built without it.
        .target(name: "CUCX"),
        library("Tensors", ["CKernels"]),
        library("Parallelism", ["CMPI", "Tensors"]),
        library("JSON"),
        library("Checkpoints", ["JSON", "Tensors"]),
        library("KVCache", ["Tensors"]),
        library("Modeling", ["Tensors", "Parallelism", "Checkpoints", "KVCache"]),
        // One target for each model; `Models` knows them all.
        library("DeepSeekV32", ["Modeling", "Tensors", "Parallelism", "Checkpoints", "KVCache"]),
        library("DeepSeekV4", ["Modeling", "Tensors", "Parallelism", "Checkpoints", "KVCache"]),
        // Pure arithmetic on descriptions: bytes, operations, shares.
        library(
            "Planning", ["Modeling", "KVCache", "Parallelism", "Tensors", "JSON"],
            data: ["Data/hardware.json", "Data/published.json", "Data/calibration.json"]),
        library(
            "Models", ["DeepSeekV32", "DeepSeekV4", "Modeling", "Checkpoints"],
            data: [
                "Released/v3_1.json", "Released/v3_2.json", "Released/v4_flash.json", "Released/v4_pro.json",
                "Released/glm_5.json",
            ]),
        library("Tokenization", ["JSON"]),
        library("Grammar", ["JSON", "Tokenization"]),
        library("Inference", ["CThreads", "Tensors", "Parallelism", "KVCache", "Modeling", "Planning", "Grammar"]),
        // Keys that one server computes for another.
        library("Disaggregation", ["Inference", "Modeling", "KVCache", "Parallelism", "Tensors"]),
        // Blocks of the prefix cache in files.
        library(
            "PrefixStorage",
            ["Disaggregation", "Inference", "Modeling", "Checkpoints", "KVCache", "Parallelism", "Tensors"]),
        // What went wrong with a connection, in words.
        library(
            "Connections",
            [.product(name: "NIOCore", package: "swift-nio"), .product(name: "NIOPosix", package: "swift-nio")]),
        // Transfers between processes, over TCP and UCX.
        library(
            "KVTransport",
            [
                "CUCX", "Disaggregation", "Inference", "Checkpoints", "Connections",
                .product(name: "NIOCore", package: "swift-nio"),
                .product(name: "NIOPosix", package: "swift-nio"),
            ]),
        library("Verification", ["Disaggregation", "Inference", "Modeling", "Parallelism", "KVCache", "Tensors"]),
        library(
            "Serving",
            ["Inference", "Grammar", "JSON", "Tokenization", .product(name: "Hummingbird", package: "hummingbird")],
            data: [
                "index.html", "page.css", "page.js", "server.js", "elements.js", "chat.js", "answer.js", "ranks.js",
                "timeline.js", "icon.svg",
            ].map { "Page/" + $0 }),
        // A router before several servers: which of them gets a request, and the way there and back.
        library(
            "Routing",
            [
                "Serving", "JSON", "Connections", .product(name: "Hummingbird", package: "hummingbird"),
                .product(name: "NIOCore", package: "swift-nio"), .product(name: "NIOHTTP1", package: "swift-nio"),
                .product(name: "NIOPosix", package: "swift-nio"),
            ]),
        .executableTarget(
            name: "braid",
            dependencies: [
                "Serving", "Routing", "PrefixStorage", "KVTransport", "Disaggregation", "Verification", "Planning",
                "Inference",
                "Grammar",
                "Models",
                "Modeling", "Checkpoints", "JSON", "KVCache", "Parallelism", "Tokenization", "Tensors", "Connections",
                .product(name: "ArgumentParser", package: "swift-argument-parser"),
                // `braid bench serving` is an HTTP client.
                .product(name: "NIOCore", package: "swift-nio"),
                .product(name: "NIOHTTP1", package: "swift-nio"),
                .product(name: "NIOPosix", package: "swift-nio"),
            ],
            swiftSettings: strict),

        // What tests share; nothing else uses it.
        .target(name: "CAllocations"),
        library(
            "TestSupport",
            [
                "CAllocations", "Tensors", "Parallelism", "Checkpoints", "JSON", "KVCache", "Modeling", "DeepSeekV32",
                "Models", "Grammar", "Inference",
            ]),
        // A server under test, and a client of its routes.
        library(
            "ServerTesting",
            [
                .product(name: "Hummingbird", package: "hummingbird"), .product(name: "NIOCore", package: "swift-nio"),
                .product(name: "NIOEmbedded", package: "swift-nio"),
            ]),
        // For `mpirun`; Tests/ProcessTests/run starts it.
        .executableTarget(
            name: "transport-laws", dependencies: ["Parallelism", "Tensors", "TestSupport"], swiftSettings: strict),
        // `make attack`: hostile input for `braid`, from outside.
        .executableTarget(
            name: "attack",
            dependencies: [
                "Inference", "JSON", "Serving", .product(name: "ArgumentParser", package: "swift-argument-parser"),
            ],
            swiftSettings: strict),
        tests("TensorsTests", ["Tensors", "CKernels", "TestSupport"], computes: true),
        tests("ParallelismTests", ["Parallelism", "Tensors", "TestSupport"]),
        tests("JSONTests", ["JSON", "TestSupport"], excluding: ["Fixtures"]),
        tests("CheckpointsTests", ["Checkpoints", "Tensors", "TestSupport"]),
        tests("KVCacheTests", ["KVCache", "Tensors", "TestSupport"]),
        tests(
            "DisaggregationTests",
            [
                "Disaggregation", "Inference", "Models", "Modeling", "KVCache", "Parallelism", "Tensors", "TestSupport",
            ], computes: true),
        tests(
            "PrefixStorageTests",
            [
                "PrefixStorage", "Inference", "Models", "Modeling", "KVCache", "Parallelism", "Tensors", "TestSupport",
            ]),
        tests(
            "KVTransportTests",
            [
                "KVTransport", "Disaggregation", "Inference", "Models", "Modeling", "KVCache", "Parallelism", "Tensors",
                "TestSupport", .product(name: "NIOCore", package: "swift-nio"),
                .product(name: "NIOPosix", package: "swift-nio"),
            ]),
        tests(
            "ModelsTests",
            [
                "Models", "Planning", "DeepSeekV32", "DeepSeekV4", "Modeling", "Checkpoints", "KVCache", "Parallelism",
                "Tensors", "TestSupport", "CAllocations",
            ]),
        tests("TokenizationTests", ["Tokenization", "JSON", "TestSupport"], excluding: ["Fixtures"], computes: true),
        tests(
            "GrammarTests", ["Grammar", "JSON", "TestSupport", "Tokenization"], excluding: ["Fixtures"], computes: true),
        tests(
            "InferenceTests",
            [
                "Verification", "Inference", "Grammar", "KVCache", "Models", "DeepSeekV32", "Modeling", "Parallelism",
                "Tensors", "TestSupport", "CAllocations",
            ]),
        tests(
            "RankTests",
            [
                "Verification", "Planning", "Inference", "Grammar", "KVCache", "Models", "DeepSeekV32", "DeepSeekV4",
                "Modeling", "Parallelism", "Tensors", "TestSupport", "CAllocations",
            ], computes: true),
        tests(
            "ServingTests",
            [
                "Serving", "Inference", "Grammar", "JSON", "Parallelism", "Tokenization",
                "TestSupport",
                "CAllocations",
                "ServerTesting",
                .product(name: "Hummingbird", package: "hummingbird"),
                .product(name: "NIOEmbedded", package: "swift-nio"),
            ]),
        tests(
            "RoutingTests",
            [
                "Routing", "Serving", "JSON", "TestSupport", "ServerTesting",
                .product(name: "Hummingbird", package: "hummingbird"),
                .product(name: "NIOCore", package: "swift-nio"), .product(name: "NIOHTTP1", package: "swift-nio"),
                .product(name: "NIOPosix", package: "swift-nio"),
            ]),
        tests(
            "CommandTests",
            [
                "braid", "Routing", "PrefixStorage", "KVTransport", "Disaggregation", "Verification", "Planning",
                "Checkpoints", "Inference", "JSON",
                "KVCache",
                "Models",
                "DeepSeekV32", "Modeling", "Parallelism", "Serving", "Tensors", "Tokenization", "TestSupport",
                .product(name: "ArgumentParser", package: "swift-argument-parser"),
                .product(name: "NIOCore", package: "swift-nio"), .product(name: "NIOPosix", package: "swift-nio"),
            ]),
    ]
)
