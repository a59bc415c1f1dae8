package com.example.getinfo;

import org.springframework.beans.factory.annotation.Value;
import org.springframework.boot.SpringApplication;
import org.springframework.boot.autoconfigure.SpringBootApplication;
import org.springframework.web.bind.annotation.GetMapping;
import org.springframework.web.bind.annotation.RestController;

/** One page, /getInfo, which greets and tells the name of the host, that is, of the container. */
@SpringBootApplication
@RestController
public class Application {

    @Value("${getinfo.greeting}")
    private String greeting;

    public static void main(String[] args) {
        SpringApplication.run(Application.class, args);
    }

    @GetMapping("/getInfo")
    public String getInfo() {
        return greeting;
    }
}
