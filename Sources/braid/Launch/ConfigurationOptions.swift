import ArgumentParser

/// These options are about options: of commands that can take them from a file.
struct ConfigurationOptions: ParsableArguments, Sendable {
    @Option(
        help: """
            A file with options, as YAML lines such as page-size: 64 or a JSON object. The environment (BRAID_PAGE_SIZE) \
            and the command line come before it.
            """)
    var config: String?

    @Flag(help: "Print every option with its value and where that comes from, as such a file, and end.")
    var printConfig = false

    /// Prints every option of a command that has these options, if that was asked for.
    ///
    /// - Parameter name: The command's name.
    /// - Returns: True if the command is to end now.
    func print(_ command: some ParsableCommand, named name: String) -> Bool {
        guard printConfig, let options = CommandOptions.command(named: [name]) else { return printConfig }
        let settings = LaunchLine.current?.settings ?? []
        for line in EffectiveConfiguration(of: command, options, settings).lines { Swift.print(line) }
        return true
    }
}
